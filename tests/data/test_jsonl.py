"""People's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from polyvex.data import Sample
from polyvex.data.jsonl import JsonLines, JsonLinesOptions
from polyvex.errors import DataError
from polyvex.testing import check_dataset


def write(folder: Path, *lines: Any, name: str = "train") -> JsonLines:
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return JsonLines(JsonLinesOptions(folder=str(folder)))


def test_it_keeps_the_contract(tiny_data: Path) -> None:
    check_dataset(JsonLines, JsonLinesOptions(folder=str(tiny_data)))


def test_a_whole_line(tmp_path: Path) -> None:
    line = {"id": "a", "image": "x/y.png", "question": "what?", "answer": "red", "kind": "color"}
    assert write(tmp_path, line).samples("train") == [
        Sample(id="a", question="what?", answer="red", images=(str(tmp_path / "x/y.png"),), kind="color")
    ]


def test_what_may_be_left_out(tmp_path: Path) -> None:
    assert write(tmp_path, {"question": "1+1?", "answer": 2}).samples("train") == [
        Sample(id="train-1", question="1+1?", answer="2", images=(), kind="all")
    ]


def test_several_images_keep_their_order(tmp_path: Path) -> None:
    (sample,) = write(tmp_path, {"images": ["b.png", "a.png"], "question": "q", "answer": "a"}).samples("train")
    assert sample.images == (str(tmp_path / "b.png"), str(tmp_path / "a.png"))


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    (sample,) = write(tmp_path, {"image": "/data/a.png", "question": "q", "answer": "a"}).samples("train")
    assert sample.images == ("/data/a.png",)


def test_empty_lines_do_not_count_but_number(tmp_path: Path) -> None:
    samples = write(tmp_path, "", {"question": "q", "answer": "a"}, "  ").samples("train")
    assert [sample.id for sample in samples] == ["train-2"]


def test_unusual_line_breaks_inside_text_are_text(tmp_path: Path) -> None:
    # JSON allows U+2028 and U+0085 in strings; str.splitlines() would break the line there.
    (sample,) = write(tmp_path, {"question": "a\u2028b\u0085c", "answer": "x"}).samples("train")
    assert sample.question == "a\u2028b\u0085c"


def test_splits_are_the_files(tmp_path: Path) -> None:
    write(tmp_path, {"question": "q", "answer": "a"}, name="val")
    dataset = write(tmp_path, {"question": "q", "answer": "a"}, name="dev")
    (tmp_path / "notes.txt").touch()
    assert dataset.splits() == ["dev", "val"]


@pytest.mark.parametrize("made", [True, False])
def test_an_unknown_split_lists_what_is_there(made: bool, tmp_path: Path) -> None:
    if made:
        write(tmp_path, {"question": "q", "answer": "a"})
    dataset = JsonLines(JsonLinesOptions(folder=str(tmp_path)))
    with pytest.raises(DataError) as caught:
        dataset.samples("test")
    assert str(caught.value) == f"no file {tmp_path / 'test.jsonl'}. Splits there: {'train' if made else 'none'}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "not a JSON object: "),
        ("[1, 2]", "not a JSON object: "),
        ('"text"', "not a JSON object: "),
        ("3", "not a JSON object: "),
        ({"question": "q"}, "missing 'answer'. Each line needs question and answer"),
        ({"answer": "a"}, "missing 'question'. Each line needs question and answer"),
        ({"question": "q", "answer": "a", "image": ["a.png", "b.png"]}, ""),
        ({"question": "q", "answer": "a", "images": "a.png"}, ""),
    ],
    ids=["broken", "list", "text", "number", "answer", "question", "image-list", "images-text"],
)
def test_a_bad_line_is_told_with_its_number(line: Any, message: str, tmp_path: Path) -> None:
    dataset = write(tmp_path, {"question": "q", "answer": "a"}, line)
    with pytest.raises(DataError) as caught:
        dataset.samples("train")
    assert str(caught.value).startswith(f"{tmp_path / 'train.jsonl'}:2: {message}")


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    dataset = write(tmp_path, {"question": "q", "answer": "a"})
    (tmp_path / "train.jsonl").write_bytes('{"question": "où?", "answer": "là"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.jsonl"):
        dataset.samples("train")


def test_all_bad_lines_are_told_at_once_up_to_five(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path, *["{"] * 4, {"question": "q"}, {"answer": "a"}, "3", {"question": "q", "answer": "a"}).samples(
            "train"
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in lines[:5]] == ["1", "2", "3", "4", "5"]
    assert lines[5] == "… and 2 more lines"
