"""The data set of people with their own files: one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from polyvex.data.base import Dataset, DatasetOptions, Sample
from polyvex.errors import DataError
from polyvex.options import LocalPath

SHOWN = 5
"""Bad lines that an error names."""


class JsonLinesOptions(DatasetOptions):
    """Options of the ``jsonl`` data set."""

    folder: LocalPath = Field(description="Folder with one file per split, such as train.jsonl and test.jsonl.")


class JsonLines(Dataset[JsonLinesOptions]):
    """``{"image": "cat.png", "question": "…", "answer": "…", "kind": "…"}`` a line; ``images`` for several.

    Image paths are relative to the folder. ``image``, ``id`` and ``kind`` may be left out.
    """

    Options = JsonLinesOptions
    summary = "your own files: <split>.jsonl with image, question, answer (and kind) on each line"

    def splits(self) -> list[str]:
        """Names of the ``.jsonl`` files of the folder."""
        return sorted(path.stem for path in Path(self.options.folder).glob("*.jsonl"))

    def samples(self, split: str) -> Sequence[Sample]:
        """Read one file; bad lines are errors with their numbers."""
        path = Path(self.options.folder) / f"{split}.jsonl"
        if not path.is_file():
            raise DataError(f"no file {path}. Splits there: {', '.join(self.splits()) or 'none'}")
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also cut inside some texts
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text: {error}") from None
        samples, problems = [], []
        for number, line in enumerate(lines, 1):
            try:
                samples += [self._sample(f"{path}:{number}", split, line)] if line.strip() else []
            except DataError as error:
                problems.append(str(error))
        if problems:
            more = f"\n… and {len(problems) - SHOWN} more lines" if len(problems) > SHOWN else ""
            raise DataError("\n".join(problems[:SHOWN]) + more)
        return samples

    def _sample(self, where: str, split: str, line: str) -> Sample:
        try:
            record: dict[str, Any] = json.loads(line)
            question, answer = record["question"], record["answer"]
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(f"{where}: not a JSON object: {error}") from None
        except KeyError as error:
            raise DataError(f"{where}: missing {error}. Each line needs question and answer") from None
        names = record.get("images") or ([record["image"]] if record.get("image") else [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{where}: image must be one path, images a list of paths; got {names!r}")
        images = tuple(str(Path(self.options.folder) / name) for name in names)
        number = where.rsplit(":", 1)[1]
        return Sample(
            id=str(record.get("id", f"{split}-{number}")),
            question=str(question),
            answer=str(answer),
            images=images,
            kind=str(record.get("kind", "all")),
        )
