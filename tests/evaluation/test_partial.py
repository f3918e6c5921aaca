"""Answers of an interrupted evaluation, on disk."""

import json
from pathlib import Path

import pytest

from polyvex.evaluation.evaluate import Answered
from polyvex.evaluation.partial import PartialAnswers


def answer(name: str) -> Answered:
    text = f"a\u2028{name}"  # a model may answer anything
    return Answered(
        id=name,
        kind="k",
        question="q",
        expected="e",
        answer=text,
        score=0.5,
        images=("x.png",),
        cut=True,
        answers=("e", "f"),
    )


def test_answers_come_back_by_their_numbers_after_any_number_of_kills(tmp_path: Path) -> None:
    path = tmp_path / "evaluation" / "e.part.jsonl"
    PartialAnswers(path, data="d").keep({3: answer("three")})
    for number in (5, 7):
        path.write_bytes(path.read_bytes() + b'{"number": 9, "id": "cu')
        PartialAnswers(path, data="d").keep({number: answer(str(number))})
    assert PartialAnswers(path, data="d").before == {3: answer("three"), 5: answer("5"), 7: answer("7")}


def test_those_of_other_data_are_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "e.part.jsonl"
    PartialAnswers(path, data="d").keep({0: answer("a")})
    assert PartialAnswers(path, data="other").before == {}
    assert PartialAnswers(path, data="d").before == {}  # the file began again


def test_an_empty_or_foreign_file_is_begun_again(tmp_path: Path) -> None:
    for content in ("", "no json", "\n\n"):
        (tmp_path / "e").write_text(content, encoding="utf-8")
        assert PartialAnswers(tmp_path / "e", data="d").before == {}


def test_nothing_is_left_when_it_is_done(tmp_path: Path) -> None:
    partial = PartialAnswers(tmp_path / "e", data="d")
    partial.done()
    partial.done()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"score": True}, {"score": 2.0}, {"answer": 3}, {"images": "a.png"}])
def test_a_line_of_other_types_ends_what_is_taken_up(tmp_path: Path, change: dict[str, object]) -> None:
    partial = PartialAnswers(tmp_path / "e", data="d")
    partial.keep({0: answer("a"), 1: answer("b")})
    head, first, second = (tmp_path / "e").read_text().splitlines()
    damaged = json.dumps({**json.loads(second), **change})
    (tmp_path / "e").write_text(f"{head}\n{first}\n{damaged}\n")
    assert PartialAnswers(tmp_path / "e", data="d").before == {0: answer("a")}
