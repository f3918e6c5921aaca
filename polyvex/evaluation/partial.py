"""Answers of an evaluation that is not finished, in a file that grows batch by batch."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from polyvex.evaluation.evaluate import Answered
from polyvex.storage import space_for, write_text


class PartialAnswers:
    """A file of answers by the number of their sample; its first line says which questions and images they belong to.

    Answers to other questions, or about other images, are not taken up: the file begins again.
    """

    def __init__(self, path: Path, *, data: str):
        self.path = path
        self.data = data
        self.before = self._read()
        if not self.before:
            write_text(path, json.dumps({"data": data}) + "\n")

    def _read(self) -> dict[int, Answered]:
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # behind the last line break is what a kill has cut
        head, *rest = whole.decode("utf-8").splitlines() or [""]
        if head != json.dumps({"data": self.data}):
            return {}
        os.truncate(self.path, len(whole))
        answers = {}
        for line in rest:
            record = json.loads(line)
            number = record.pop("number")
            lists = {name: tuple(record.get(name, ())) for name in ("images", "answers")}
            answers[number] = Answered(**{**record, **lists})
        return answers

    def keep(self, answers: Mapping[int, Answered]) -> None:
        """Append some answers.

        Raises:
            StorageError: if the disk is full.
        """
        lines = [json.dumps({"number": number, **asdict(answer)}) for number, answer in answers.items()]
        with space_for(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))

    def done(self) -> None:
        """Remove the file: the whole evaluation is stored."""
        self.path.unlink(missing_ok=True)
