"""Where two recipes differ."""

from typing import Any

import pytest

from polyvex.recipe.differences import differences


@pytest.mark.parametrize(
    ("there", "here", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 there, 2 here"]),
        ({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y"}}}, ["a.b.c: 'x' there, 'y' here"]),
        ({"a": 1}, {}, ["a: 1 there, missing here"]),
        ({}, {"a": 1}, ["a: missing there, 1 here"]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, ["a.1.b: 2 there, 3 here"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1] there, [1, 2] here"]),
        ({"a": {"b": 1}}, {"a": 3}, ["a: {'b': 1} there, 3 here"]),
        ({"a": 1, "b": 2}, {"b": 3, "a": 0}, ["a: 1 there, 0 here", "b: 2 there, 3 here"]),
        ({"a": 1.0}, {"a": 1}, []),
    ],
)
def test_differences_one_line_per_value(there: Any, here: Any, lines: list[str]) -> None:
    assert list(differences(there, here)) == lines


def test_tables_that_are_missing_are_counted_and_not_printed() -> None:
    there, here = {"stages": [{"name": "a"}, {"name": "b"}], "moe": {"k": 1}}, {"stages": [{"name": "c"}]}
    assert list(differences(there, here)) == [
        "stages: 2 tables there, 1 here",
        "stages.0.name: 'a' there, 'c' here",
        "moe: a table there, missing here",
    ]
