"""The contract of samples, whichever data set makes them."""

from typing import Any

import pytest

from polyvex.data import Sample
from polyvex.data.check import check_samples, path_problem, sample_problems
from polyvex.errors import DataError

GOOD: dict[str, Any] = {"id": "1", "question": "q", "answer": "a", "images": ("a.png",), "kind": "k"}


def test_good_samples_pass() -> None:
    first = Sample(**GOOD, answers=("b", "a"))
    check_samples([first, Sample(**{**GOOD, "id": "2", "images": ()})], where="train")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": 5}, "id is the number 5; expected text"),
        ({"id": " "}, "id is ' '; expected some text"),
        ({"question": None}, "question is null; expected text"),
        ({"answer": ["a", "b"]}, "answer is a list; expected text"),
        ({"answer": "\ud83d"}, "answer contains half of a surrogate pair: \\ud83d"),
        ({"kind": True}, "kind is true; expected text"),
        ({"answers": ["a"]}, "answers is a list (list); expected a tuple of texts"),
        ({"answers": ("a", 2)}, "answers has an entry that is the number 2; expected text"),
        ({"answers": ("b",)}, "answers does not contain answer"),
        ({"images": "a.png"}, "images is text (str); expected a tuple of texts"),
        ({"images": ("a\0.png",)}, "images has an entry that contains a NUL character: a\\x00.png"),
        ({"images": (None,)}, "images has an entry that is null; expected text"),
    ],
)
def test_one_problem_of_a_sample(changes: dict[str, Any], problem: str) -> None:
    assert sample_problems(Sample(**{**GOOD, **changes})) == [problem]


def test_another_object_is_no_sample() -> None:
    assert sample_problems({"id": "1"}) == ["got dict; expected Sample"]


def test_paths_are_no_addresses() -> None:
    assert path_problem("folder/data.png") == ""
    for address in ("data:image/png;base64,AAAA", "DATA:,", "https://x.org/a.png", "s3://bucket/a.png"):
        assert path_problem(address), address
    assert path_problem("a" * 4097) == "has 4,097 characters; expected a path"


def test_all_problems_are_counted_and_the_first_ones_shown() -> None:
    samples = [Sample(**{**GOOD, "id": str(number), "question": ""}) for number in range(12)]
    with pytest.raises(DataError) as caught:
        check_samples([*samples, Sample(**GOOD), Sample(**GOOD)], where="the split 'train'")
    lines = str(caught.value).splitlines()
    assert caught.value.code == "samples"
    assert lines[0] == "the split 'train': 13 problems"
    assert lines[1] == "sample '0': question is ''; expected some text"
    assert lines[11:] == ["… and 3 more problems"]
