"""People's own files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from polyvex.data import Sample, lines
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
    assert write(tmp_path, {"question": "1+1?", "answer": "2"}).samples("train") == [
        Sample(id="train-1", question="1+1?", answer="2", images=(), kind="all")
    ]


def test_several_images_keep_their_order(tmp_path: Path) -> None:
    (sample,) = write(tmp_path, {"images": ["b.png", "a.png"], "question": "q", "answer": "a"}).samples("train")
    assert sample.images == (str(tmp_path / "b.png"), str(tmp_path / "a.png"))


def test_paths_of_images_stay_below_their_folder(tmp_path: Path) -> None:
    for name in ("/etc/passwd", "../a.png", "x/../../a.png", "C:\\a.png", "a\u0007.png", "x" * 300):
        problem = refused(tmp_path, {"image": name, "question": "q", "answer": "a"})
        assert "data.image_folder sets another folder" in problem, name


def test_an_absolute_path_below_the_folder_is_accepted(tmp_path: Path) -> None:
    line = {"image": str(tmp_path / "x" / "a.png"), "question": "q", "answer": "a"}
    (sample,) = write(tmp_path, line).samples("train")
    assert sample.images == (str(tmp_path / "x" / "a.png"),)


def test_images_may_have_a_folder_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, {"image": "x/a.png", "question": "q", "answer": "a"})
    dataset = JsonLines(JsonLinesOptions(folder=str(tmp_path), image_folder="/data"))
    assert dataset.samples("train")[0].images == ("/data/x/a.png",)


def test_the_first_of_several_answers_is_trained_on(tmp_path: Path) -> None:
    (sample,) = write(tmp_path, {"question": "q", "answers": ["red", "scarlet"]}).samples("train")
    assert (sample.answer, sample.answers, sample.accepted) == ("red", ("red", "scarlet"), ("red", "scarlet"))


def refused(folder: Path, line: Any) -> str:
    """What is wrong with the second of three lines."""
    good = {"question": "q", "answer": "a"}
    with pytest.raises(DataError) as caught:
        write(folder, good, line, good).samples("train")
    assert caught.value.code == "data-lines"
    start = f"{folder / 'train.jsonl'}:2: "
    text = str(caught.value)
    assert all(part.startswith(start) for part in text.splitlines())
    text.encode("utf-8")  # it can be printed
    return text.replace(start, "")


@pytest.mark.parametrize(
    ("value", "described"),
    [
        ("null", "null"),
        ("3", "the number 3"),
        ("2.5", "the number 2.5"),
        ("true", "true"),
        ("[1]", "a list"),
        ('{"a": 1}', "an object"),
    ],
)
@pytest.mark.parametrize("key", ["question", "answer", "image", "id", "kind"])
def test_no_value_is_made_into_text(key: str, value: str, described: str, tmp_path: Path) -> None:
    texts = {"question": '"q"', "answer": '"a"', key: value}
    line = "{" + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}"
    assert refused(tmp_path, line).startswith(f"{key} is {described}; expected text")


@pytest.mark.parametrize("key", ["answers", "images"])
@pytest.mark.parametrize("value", ["null", "3", "true", '"text"', "{}", "[1]", "[null]", '["a", ["b"]]', '["a", ""]'])
def test_lists_hold_texts_only(key: str, value: str, tmp_path: Path) -> None:
    rest = '"answer": "a"' if key == "images" else '"image": "a.png"'
    assert refused(tmp_path, f'{{"question": "q", {rest}, "{key}": {value}}}').startswith(key)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("img", "image"),
        ("image_path", "image"),
        ("Image", "image"),
        ("filename", "image"),
        ("answr", "answer"),
        ("label", "answer"),
        ("knd", "kind"),
        ("zzz", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, meant: str, tmp_path: Path) -> None:
    problem = refused(tmp_path, {"question": "q", "answer": "a", key: "x"})
    assert problem.startswith(f"unknown key '{key}'.")
    assert (f"Did you mean '{meant}'?" in problem) == bool(meant)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"question": "", "answer": "a"}, "question is ''"),
        ({"question": "q", "answer": " \t"}, "answer is ' \\t'"),
        ({"question": "q", "answers": []}, "answers is an empty list"),
        ({"question": "q", "answer": "a", "answers": ["b"]}, "answer and answers exclude each other"),
        ({"question": "q", "answer": "a", "image": "a", "images": ["b"]}, "image and images exclude each other"),
        ({"question": "q", "answer": "a", "image": "http://x.org/a.png"}, "image is the URL http://x.org/a.png."),
        ('{"question": "cut \\ud83d?", "answer": "a"}', "question contains half of a surrogate pair: cut \\ud83d?"),
        ('{"question": "q", "answer": "a \\udc00"}', "answer contains half of a surrogate pair"),
        ('{"question": "q", "answer": "a", "image": "a\\ud83d.png"}', "image contains half of a surrogate pair"),
        ('{"question": "q", "answer": "a", "image": "a\\u0000b.png"}', "image contains a NUL character: a\\x00b.png"),
        ('{"question": "q", "answer": "a", "answer": "b"}', "the key 'answer' stands there twice"),
        ('{"question": "q", "answer": NaN}', "NaN is not JSON"),
        ('{"question": "q", "answer": -Infinity}', "-Infinity is not JSON"),
        ('{"question": "q", "answer": ' + "1" * 5000 + "}", "a number has too many digits"),
        ('{"question": "q", "answer": ' + "[" * 200_000 + "}", "the JSON is nested too deeply"),
        ({"question": "q", "answer": int("9" * 400)}, "answer is the number 99999999999999999999… (400 characters)"),
        ('{"question": "q", "answer": "a"', "not JSON: "),
        ("[1, 2]", "a JSON list"),
        ('"text"', "the line is text"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_else_may_be_wrong_with_a_line(line: Any, problem: str, tmp_path: Path) -> None:
    assert refused(tmp_path, line).startswith(problem)


def test_all_that_is_wrong_with_a_line_is_listed(tmp_path: Path) -> None:
    problems = refused(tmp_path, {"img": "a.png", "question": None, "kind": 3}).splitlines()
    assert [problem.split()[0] for problem in problems] == ["question", "kind", "unknown", "answer"]


def test_a_data_uri_is_not_repeated(tmp_path: Path) -> None:
    problem = refused(tmp_path, {"image": "data:image/png;base64," + "A" * 35_000, "question": "q", "answer": "a"})
    assert problem == "image is a data URI (35,022 characters). Store the image as a file and give its path"


def test_two_samples_with_one_id_are_refused_with_both_lines(tmp_path: Path) -> None:
    lines = [{"id": name, "question": "q", "answer": "a"} for name in ("a", "b", "a")]
    with pytest.raises(DataError, match=r"train\.jsonl:3: the id 'a' is also on line 1"):
        write(tmp_path, *lines).samples("train")


TEXT = '{"question": "où est-ce? 😀", "answer": "là"}\r\n{"question": "ਊ", "answer": "x"}\r\n'
"""Two lines; U+0A0A holds two line feeds in UTF-16."""


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "mark"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_encodings_that_editors_write(encoding: str, mark: str, tmp_path: Path) -> None:
    dataset = write(tmp_path)
    (tmp_path / "train.jsonl").write_bytes((mark + TEXT).encode(encoding))
    if not mark and encoding != "utf-8":
        with pytest.raises(DataError, match=r"train\.jsonl:1: "):
            dataset.samples("train")
        return
    assert [sample.question for sample in dataset.samples("train")] == ["où est-ce? 😀", "ਊ"]


def test_joined_files_may_have_a_mark_in_between(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(("\ufeff" + TEXT).encode() * 2)
    assert len(dataset.samples("train")) == 4


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(TEXT.encode() + '{"question": "où?", "answer": "x"}'.encode("cp1252"))
    with pytest.raises(DataError, match=r"train\.jsonl:3: byte 16 \(0xf9\) is not UTF-8"):
        dataset.samples("train")


def test_a_large_file_in_utf_16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "WIDEST", 10)
    (tmp_path / "train.jsonl").write_bytes(("\ufeff" + TEXT).encode("utf-16-le"))
    with pytest.raises(DataError) as error:
        JsonLines(JsonLinesOptions(folder=str(tmp_path))).samples("train")
    assert error.value.code == "data-lines"


def test_cut_utf_16_is_named_with_its_line(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(("\ufeff" + TEXT).encode("utf-16-le") + b"x")
    with pytest.raises(DataError, match=r"train\.jsonl:3: byte \d+ behind the byte order mark is not UTF-16-LE"):
        dataset.samples("train")


@pytest.mark.parametrize("text", ['[{"question": "q", "answer": "a"}]', "[\n{},\n{}\n]"])
def test_a_json_list_is_one_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path, text).samples("train")
    assert caught.value.code == "data-array"
    assert "\n" not in str(caught.value)


def test_an_empty_file_has_no_samples(tmp_path: Path) -> None:
    assert write(tmp_path).samples("train") == []


def test_a_pipe_or_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    dataset = write(tmp_path, {"question": "q" * 200, "answer": "a"})
    for split, code in (("pipe", "file-kind"), ("zero", "file-kind"), ("../train", "file-missing")):
        with pytest.raises(DataError) as caught:
            dataset.samples(split)
        assert caught.value.code == code
    monkeypatch.setattr(lines, "LONGEST", 100)
    with pytest.raises(DataError, match=r"train\.jsonl:1: more than 100 bytes"):
        dataset.samples("train")


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


def test_all_bad_lines_are_listed_up_to_ten(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path, *["{"] * 7, {"question": "q"}, {"answer": "a"}, "3", *["4"] * 1500).samples("train")
    problems = str(caught.value).splitlines()
    numbers = [problem.split(": ")[0].rsplit(":", 1)[1] for problem in problems[:10]]
    assert numbers == [str(number) for number in range(1, 11)]
    assert problems[10:] == ["… and 1,500 more problems"]
