"""Every file of a run or an ablation, damaged in many ways: the file is named, and no other error reaches people."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyvex.errors import PolyvexError, RunError
from polyvex.evaluation.evaluate import Answered
from polyvex.records.files import read_lines
from polyvex.report.collect import read_run
from polyvex.report.grid import read_ablation
from tests.report.conftest import group, write_ablation

BYTES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\x00",
    b"[" * 50_000,
    b'"' + b"x" * 50_000 + b'"',
    b"\xef\xbb\xbf{}",
    b"nul\n",
)
VALUES = (None, "x", -1, 10**30, [], {}, [None], {"x": None}, True, "../../x", "\x00")


def mutants(content: bytes) -> Iterator[bytes]:
    """Other content, content that was cut, and for JSON every value replaced and every key removed."""
    yield from BYTES
    yield content[: len(content) // 2]
    yield content + content
    line = content.split(b"\n", 1)[0] if content.count(b"\n") > 1 else content
    try:
        whole = json.loads(line)
    except ValueError:
        return
    for place in list(places(whole)):
        for value in (*VALUES, ...):
            yield changed(line, place, value) + b"\n"


def places(value: object, above: tuple = ()) -> Iterator[tuple]:
    if len(above) > 3:
        return
    keys = (
        list(value) if isinstance(value, dict) else list(range(min(len(value), 1))) if isinstance(value, list) else []
    )
    for key in keys:
        yield (*above, key)
        yield from places(value[key], (*above, key))  # type: ignore[index]


def changed(line: bytes, place: tuple, value: object) -> bytes:
    whole = json.loads(line)
    here = whole
    for key in place[:-1]:
        here = here[key]
    if value is ...:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    return json.dumps(whole).encode()


def attack(folder: Path, read: object) -> int:
    """Read the folder with each file damaged in turn; returns how many were refused."""
    refused = 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".toml", ".txt")):
        content = path.read_bytes()
        for mutant in mutants(content):
            path.write_bytes(mutant)
            try:
                read(folder)  # type: ignore[operator]
            except PolyvexError as error:
                refused += 1
                named = path.name in str(error) or error.code == "unsafe-name"
                assert named, (path, mutant[:200])
        path.write_bytes(content)
        read(folder)  # type: ignore[operator]
    return refused


def test_a_damaged_file_of_a_run_is_named(hand_run: Path) -> None:
    assert attack(hand_run, read_run) > 300


def test_a_damaged_file_of_an_ablation_is_named(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [group("a", [[0, 1]]), group("b", [[1, 1]])], failed={"b": "x"})
    (folder / "cells" / "a-0" / "failed.txt").write_text("x")
    assert attack(folder, read_ablation) > 100


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ""])
def test_names_in_a_run_from_elsewhere_stay_below_it(hand_run: Path, name: str) -> None:
    text = (hand_run / "recipe.toml").read_text()
    (hand_run / "recipe.toml").write_text(text.replace('name = "tune"', f'name = "/../{name}"'))
    with pytest.raises(PolyvexError) as caught:
        read_run(hand_run)
    assert caught.value.code == "unsafe-name"


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1.5", "-0.1"])
def test_a_score_that_is_no_number_from_0_to_1_is_refused(tmp_path: Path, score: str) -> None:
    line = {"id": "q", "kind": "k", "question": "?", "expected": "a", "answer": "a", "score": 1.0}
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(line).replace("1.0", score) + "\n", encoding="utf-8")
    with pytest.raises(RunError) as caught:
        read_lines(path, Answered)
    assert caught.value.code == "damaged-record"
