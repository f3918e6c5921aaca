"""What errors say by themselves; where each is raised is for the tests of that place."""

import pytest

from polyvex import errors
from polyvex.errors import PolyvexError, RecipeError, TrainingError


def test_recipe_error_lists_every_problem_under_its_source() -> None:
    error = RecipeError(["first", "second"], source="a.toml")
    assert str(error) == "a.toml: 2 problems\n  - first\n  - second"
    assert error.problems == ["first", "second"]


def test_one_problem_is_not_plural() -> None:
    assert str(RecipeError(["only"])) == "recipe: 1 problem\n  - only"


def test_wrong_input_exits_with_2_and_failed_work_with_1() -> None:
    assert PolyvexError.exit_code == 2
    assert TrainingError.exit_code == 1


@pytest.mark.parametrize(
    "kind", [value for value in vars(errors).values() if isinstance(value, type)], ids=lambda kind: kind.__name__
)
def test_every_error_is_a_polyvex_error(kind: type) -> None:
    assert issubclass(kind, PolyvexError)
