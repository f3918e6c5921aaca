"""The data set keeps its contract, counts what its authors say, and tells what is wrong with damaged files."""

import json
import re
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import polyvex_easyvqa.dataset
import pytest
from polyvex_easyvqa import EasyVqa, EasyVqaOptions, register_datasets
from pydantic import ValidationError

from polyvex.encoders.images import open_image
from polyvex.errors import DataError
from polyvex.testing import check_dataset


def test_the_entry_point_offers_the_dataset():
    [point] = entry_points(group="polyvex", name="easyvqa")

    assert point.load().register_datasets() == register_datasets() == {"easy-vqa": EasyVqa}


@pytest.mark.parametrize("limit", [0, 1, 50])
def test_contract(limit: int):
    check_dataset(EasyVqa, EasyVqaOptions(limit=limit))


def test_counts_are_those_of_its_authors():
    dataset = EasyVqa(EasyVqaOptions())
    train, test = dataset.samples("train"), dataset.samples("test")

    assert (len(train), len(test)) == (38_575, 9_673)
    assert Counter(sample.kind for sample in train)["yes/no"] == 28_407
    assert Counter(sample.kind for sample in test)["yes/no"] == 7_136
    assert len({sample.images for sample in train}) == 4_000
    assert len({sample.answer for sample in train}) == 13


def test_a_known_sample():
    sample = EasyVqa(EasyVqaOptions()).samples("train")[0]

    assert (sample.id, sample.question, sample.answer) == ("train-000000", "what is the blue shape?", "rectangle")
    assert sample.kind == "shape"
    image = open_image(sample.images[0])
    assert image.size == (64, 64)
    red, _, blue = max(image.getcolors() or [], key=lambda entry: (entry[1][2] - entry[1][0], entry[0]))[1]
    assert blue > 2 * red


@pytest.mark.parametrize("limit", [10, 50, 1000])
def test_a_limit_keeps_all_kinds_and_the_ids(limit: int):
    whole = {sample.id: sample for sample in EasyVqa(EasyVqaOptions()).samples("test")}

    samples = EasyVqa(EasyVqaOptions(limit=limit)).samples("test")

    assert len(samples) == limit
    assert {sample.kind for sample in samples} == {"yes/no", "color", "shape"}
    assert all(whole[sample.id] == sample for sample in samples)
    assert len({sample.images for sample in samples}) > 0.6 * min(limit, 1000)


@pytest.mark.parametrize("limit", [9_673, 9_674, 1_000_000])
def test_a_limit_of_all_or_more_gives_all(limit: int):
    assert len(EasyVqa(EasyVqaOptions(limit=limit)).samples("test")) == 9_673


@pytest.mark.parametrize("options", [{"limit": -1}, {"limit": "5"}, {"max_samples": 5}])
def test_wrong_options_are_refused(options: dict[str, object]):
    with pytest.raises(ValidationError):
        EasyVqaOptions.model_validate(options)


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(DataError, match=re.escape("no split 'val'. Known: train, test")):
        EasyVqa(EasyVqaOptions()).samples("val")


def test_a_missing_wheel_names_the_command(monkeypatch: pytest.MonkeyPatch):
    assert EasyVqa(EasyVqaOptions()).missing() == ""
    monkeypatch.setattr(polyvex_easyvqa.dataset, "find_in_wheel", lambda *_: None)
    assert EasyVqa(EasyVqaOptions()).missing() == polyvex_easyvqa.dataset.INSTALL

    with pytest.raises(DataError, match=re.escape("pip install --no-deps easy-vqa==1.0")):
        EasyVqa(EasyVqaOptions()).samples("train")


GOOD = ["what color is it?", "red", 3]
DAMAGED = {
    '[["what is': "damaged",
    "": "damaged",
    '{"questions": []}': "expected a list of questions, got dict",
    "[]": "expected a list of questions, got list",
    json.dumps([GOOD, ["what?", "purple", 3]]): "row 1 is \\['what\\?', 'purple', 3\\]; expected",
    json.dumps([GOOD, ["what?", "red"]]): "row 1 is",
    json.dumps([GOOD, ["what?", "red", "3"]]): "row 1 is",
    json.dumps([["what?", ["red"], 3]]): "row 0 is",
    json.dumps([GOOD, None]): "row 1 is None",
}


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_named_with_what_to_do(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "questions.json"
    path.write_text(content)
    monkeypatch.setattr(polyvex_easyvqa.dataset, "find_in_wheel", lambda *_: path)

    with pytest.raises(DataError, match=DAMAGED[content]) as caught:
        EasyVqa(EasyVqaOptions()).samples("train")

    assert str(path) in str(caught.value)
    assert "pip install --force-reinstall --no-deps easy-vqa==1.0" in str(caught.value)


def test_a_file_that_is_not_text_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "questions.json"
    path.write_bytes(b"\xff\xfe\x00\x81")
    monkeypatch.setattr(polyvex_easyvqa.dataset, "find_in_wheel", lambda *_: path)

    with pytest.raises(DataError, match="damaged"):
        EasyVqa(EasyVqaOptions()).samples("train")


def test_the_package_of_the_wheel_is_not_imported():
    import subprocess
    import sys

    code = (
        "import sys; from polyvex_easyvqa import *; "
        "EasyVqa(EasyVqaOptions(limit=3)).samples('test'); print('easy_vqa' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
