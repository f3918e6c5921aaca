"""Records on disk: whole ones are read, damaged ones are named with every problem."""

import hashlib
import json
from pathlib import Path

import pytest

from polyvex.errors import RunError
from polyvex.evaluation.evaluate import Answered
from polyvex.records.evaluation import EvaluationSummary
from polyvex.records.files import Record, read_lines, read_record, read_toml
from polyvex.records.run import DoneRecord, MetricsLine

GOOD = {
    "name": "0-a",
    "metric": "exact_match",
    "accuracy": 0.5,
    "interval_95": [0.25, 0.75],
    "questions": 2,
    "skipped": 0,
    "images": True,
    "by_kind": {"color": {"accuracy": 0.5, "questions": 2}},
}
DEEP = b"[" * 100_000


def refused(path: Path, content: bytes, model: type[Record]) -> str:
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_record(path, model)
    assert caught.value.code == "damaged-record"
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_record_is_read_and_keeps_keys_of_later_versions(tmp_path: Path) -> None:
    path = tmp_path / "0-a.json"
    path.write_text(json.dumps({**GOOD, "later": 1}))
    record = read_record(path, EvaluationSummary)
    assert record.interval_95 == (0.25, 0.75)
    assert record.version == 1
    assert record.model_dump()["later"] == 1


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"1", b'"x"', b"{", b"\xff\xfe", DEEP, b'{"name": "\xff"}'])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "x.json", content, EvaluationSummary)


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize("value", [None, "x", [None], {"x": None}, 10**40, -1, [1, 2, 3]])
def test_a_value_of_another_type_is_named_with_its_key(tmp_path: Path, key: str, value: object) -> None:
    if (key, value) in [("name", "x"), ("metric", "x"), ("accuracy", None)] or (key == "questions" and value == 10**40):
        return
    if key == "skipped" and value == 10**40:
        return
    assert key in refused(tmp_path / "x.json", json.dumps({**GOOD, key: value}).encode(), EvaluationSummary)


def test_missing_keys_and_another_version_are_all_named_at_once(tmp_path: Path) -> None:
    told = refused(tmp_path / "x.json", b'{"version": 2, "seconds": NaN}', DoneRecord)
    assert all(key in told for key in ("version", "seconds", "trained_parameters", "hashes_before", "hashes_after"))


def test_the_message_does_not_repeat_a_huge_value(tmp_path: Path) -> None:
    assert (
        len(refused(tmp_path / "x.json", json.dumps({**GOOD, "questions": "x" * 100_000}).encode(), EvaluationSummary))
        < 600
    )


def test_a_line_that_was_cut_at_the_end_is_dropped_and_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert [line.step for line in read_lines(path, MetricsLine)] == [1]
    path.write_text('{"step": 1}\nnull\n{"step": "2"}\n{"step": 3, "loss": []}\n{}\n\n')
    with pytest.raises(RunError) as caught:
        read_lines(path, MetricsLine)
    assert all(f"line {number}:" in str(caught.value) for number in (2, 3, 4, 5, 6))
    assert "line 1:" not in str(caught.value)


def test_answers_are_lines_of_the_data_class(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    answer = {"id": "1", "kind": "k", "question": "q", "expected": "e", "answer": "a", "score": 1, "images": ["x.png"]}
    path.write_text(json.dumps(answer) + "\n")
    assert read_lines(path, Answered) == [
        Answered(id="1", kind="k", question="q", expected="e", answer="a", score=1.0, images=("x.png",))
    ]
    path.write_text(json.dumps({**answer, "score": "1", "images": "x.png"}) + "\n")
    with pytest.raises(RunError, match="score"):
        read_lines(path, Answered)


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = " + DEEP, b"a = " + b"9" * 5000])
def test_a_toml_file_that_is_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_toml(path)
    assert caught.value.code == "damaged-record"
    assert str(path) in str(caught.value)


def test_lines_of_another_file_than_that_of_the_digest_are_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "a.jsonl", b'{"version": 1}\n{"version": 1}\n'
    digest = hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    assert len(read_lines(path, Record, sha256=digest)) == 2
    path.write_bytes(content[:15])  # a whole line is gone
    with pytest.raises(RunError) as changed:
        read_lines(path, Record, sha256=digest)
    path.unlink()
    with pytest.raises(RunError) as lost:
        read_lines(path, Record, sha256=digest)
    assert {changed.value.code, lost.value.code} == {"damaged-record"}
