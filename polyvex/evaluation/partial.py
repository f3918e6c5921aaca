"""Answers of an evaluation that is not finished, in a file that grows batch by batch."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from polyvex.evaluation.evaluate import Answered
from polyvex.storage import space_for, write_text

_NUMBER = TypeAdapter(Annotated[int, Field(strict=True, ge=0)])
_ANSWERED = TypeAdapter(Answered)


class PartialAnswers:
    """A file of answers by the number of their sample; its first line identifies the evaluation that they belong to.

    Answers of another evaluation are not used: the file begins again. So it does after a line that is damaged.

    Args:
        data: whatever decides the answers: a digest of questions and images, of the model, and so on.
        writes: false in all but the first of several processes; those only read.
    """

    def __init__(self, path: Path, *, data: str, writes: bool = True):
        self.path = path
        self.data = data
        self.writes = writes
        self.before = self._read()

    def _read(self) -> dict[int, Answered]:
        head = json.dumps({"data": self.data}).encode() + b"\n"
        content = self.path.read_bytes() if self.path.exists() else b""
        answers, length = {}, len(head)
        if content.startswith(head):
            for number, answer, size in _whole_lines(content[length:]):
                answers[number] = answer
                length += size
        if self.writes and answers:
            os.truncate(self.path, length)  # what a kill has cut
        elif self.writes:
            write_text(self.path, head.decode())
        return answers

    def keep(self, answers: Mapping[int, Answered]) -> None:
        """Append some answers.

        Raises:
            StorageError: if the disk is full.
        """
        if not self.writes:
            return
        lines = [json.dumps({"number": number, **asdict(answer)}) for number, answer in answers.items()]
        with space_for(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))

    def done(self) -> None:
        """Remove the file: the whole evaluation is stored."""
        if self.writes:
            self.path.unlink(missing_ok=True)


def _whole_lines(content: bytes) -> Iterator[tuple[int, Answered, int]]:
    """Number, answer and length in bytes of each line, up to the first that is cut or damaged."""
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line)
            number = _NUMBER.validate_python(record.pop("number"))
            answer = _ANSWERED.validate_json(json.dumps(record), strict=True)
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if not line.endswith(b"\n"):
            return
        yield number, answer, len(line)
