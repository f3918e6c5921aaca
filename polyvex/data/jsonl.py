"""The data set of people with their own files: one JSON object a line."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from polyvex.data.base import Dataset, DatasetOptions, Sample
from polyvex.data.check import SHOWN, listed
from polyvex.data.lines import Line, read_lines
from polyvex.data.record import check, parse
from polyvex.errors import DataError
from polyvex.options import LocalPath
from polyvex.reading import clip
from polyvex.storage import UnsafeNameError, below


class JsonLinesOptions(DatasetOptions):
    """Options of the ``jsonl`` data set."""

    folder: LocalPath = Field(description="Folder with one file per split, such as train.jsonl and test.jsonl.")
    image_folder: LocalPath = Field(
        default="", description="Folder that the paths of images start from and stay in; that of the files if empty."
    )


class JsonLines(Dataset[JsonLinesOptions]):
    """``{"image": "cat.png", "question": "…", "answer": "…", "kind": "…"}`` a line.

    ``images`` lists several images, ``answers`` several correct answers, of which the first is trained on. Paths of
    images are relative to the image folder. A line without ``image`` is text alone; ``id`` and ``kind`` are optional.
    """

    Options = JsonLinesOptions
    summary = "your own files: <split>.jsonl with image, question, answer (and kind) on each line"

    def splits(self) -> list[str]:
        """Names of the ``.jsonl`` files of the folder."""
        return sorted(path.stem for path in Path(self.options.folder).glob("*.jsonl"))

    def samples(self, split: str) -> Sequence[Sample]:
        """Read one file, which may be UTF-8, or UTF-16 with a byte order mark.

        Raises:
            DataError: if there is no such file, or with the code ``data-lines`` and every problem with its line.
        """
        path = Path(self.options.folder) / f"{split}.jsonl"
        if split not in self.splits():
            raise DataError(
                f"no file {clip(str(path))}. Splits there: {', '.join(self.splits()) or 'none'}", code="file-missing"
            )
        samples: list[Sample] = []
        problems: list[str] = []
        count, first_lines = 0, {}
        for line in read_lines(path):
            sample, found = self._sample(split, line, path)
            if sample is not None and sample.id in first_lines:
                found = [f"the id {clip(sample.id, 60)!r} is also on line {first_lines[sample.id]}"]
            elif sample is not None:
                first_lines[sample.id] = line.number
                samples.append(sample)
            count += len(found)
            problems += [f"{path}:{line.number}: {problem}" for problem in found if len(problems) < SHOWN]
        if count:
            raise DataError("\n".join(listed(problems, count=count)), code="data-lines")
        return samples

    def _sample(self, split: str, line: Line, path: Path) -> tuple[Sample | None, list[str]]:
        """The sample of a line, None for an empty one, or what is wrong with it."""
        if line.problem or not line.text.strip():
            return None, [line.problem] if line.problem else []
        try:
            raw = parse(line.text)
        except DataError as error:
            if error.code == "data-array" and not line.number > 1:
                raise DataError(f"{path}: {error}", code="data-array") from None
            return None, [str(error)]
        record, problems = check(raw)
        if record is None or problems:
            return None, problems
        names = record.images if "images" in raw else [record.image] if "image" in raw else []
        images, problems = self._located(names)
        if problems:
            return None, problems
        return (
            Sample(
                id=record.id or f"{split}-{line.number}",
                question=record.question,
                answer=record.answers[0] if record.answers else record.answer,
                answers=tuple(record.answers),
                images=tuple(images),
                kind=record.kind,
            ),
            [],
        )

    def _located(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """The paths of images below their folder, and what is wrong with the others."""
        folder = Path(self.options.image_folder or self.options.folder)
        found, problems = [], []
        for one in names:
            name = one
            given = Path(name)
            inside = given.is_absolute() and given.is_relative_to(folder)
            try:
                found.append(
                    str(below(folder, str(given.relative_to(folder)) if inside else name, nested=True, links=True))
                )
            except UnsafeNameError as error:
                problems.append(f"{error}. Paths of images start from {folder}; data.image_folder sets another folder")
        return found, problems
