"""Options are strict: no unknown key, no guessed type, no later change."""

from typing import Any

import pytest
from pydantic import Field, ValidationError

from polyvex.options import Options


class Some(Options):
    count: int = Field(default=2, ge=1)
    share: float = 0.5


@pytest.mark.parametrize("raw", [{"cuont": 3}, {"count": "3"}, {"count": 3.0}, {"count": 0}, {"share": "0.5"}])
def test_wrong_values_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Some.model_validate(raw)


def test_a_whole_number_may_stand_for_a_float() -> None:
    # In TOML, `share = 1` is an int; nobody should have to write 1.0.
    assert Some.model_validate({"share": 1}).share == 1.0


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Some().count = 3  # type: ignore[misc]


def test_defaults_are_checked_too() -> None:
    class Wrong(Options):
        count: int = Field(default=0, ge=1)

    with pytest.raises(ValidationError):
        Wrong()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_without_end_is_refused(value: float) -> None:
    class Decay(Options):
        decay: float = 0.0

    with pytest.raises(ValidationError, match="finite number"):
        Decay(decay=value)


def test_an_example_is_the_defaults_unless_there_are_none() -> None:
    class Whole(Options):
        size: int = 3

    class Lacking(Options):
        size: int

    class Own(Lacking):
        @classmethod
        def example(cls) -> "Own":
            return cls(size=7)

    assert Whole.example() == Whole(size=3)
    assert Own.example().size == 7
    with pytest.raises(ValidationError, match="size"):
        Lacking.example()
