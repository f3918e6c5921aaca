"""Bring a fusion to the size of another one, so that a comparison of the two is fair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from polyvex.fusion.base import Fusion
from polyvex.tokens import TokenShape

What = Literal["parameters", "tokens"]

CLOSE = 0.1
"""How far from the wanted size is still called the same, as a share of it."""

WIDEST = 2**24
"""No option of a fusion is looked for beyond this."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What an option was set to, the size that this gives, and the size that was wanted."""

    what: What
    option: str
    value: int
    got: int
    wanted: int

    def __str__(self) -> str:
        off = (self.got - self.wanted) / self.wanted
        exact = "as wanted" if self.got == self.wanted else f"{self.wanted:,} wanted, {off:+.2%}"
        return f"{self.option} = {self.value} gives {self.got:,} {self.what} ({exact})"


def size_of(kind: type[Fusion], options: Any, what: What, *, inputs: Sequence[TokenShape], dim: int) -> int:
    """Parameters of a fusion, or tokens that come out of one tile.

    Raises:
        ValueError: if the fusion cannot work with these options.
    """
    if what == "parameters":
        return kind.count_parameters(options, inputs=inputs, dim=dim)
    return sum(shape.tokens for shape in kind.describe(options, inputs=inputs, dim=dim))


def bring_to(
    kind: type[Fusion], options: Any, what: What, wanted: int, *, inputs: Sequence[TokenShape], dim: int
) -> tuple[Any, Match]:
    """The options with the one that ``kind.sizes`` names set so that the size is nearest to ``wanted``.

    Returns:
        The options, and what was set. They are a copy; all other options stay.

    Raises:
        ValueError: if the fusion has no such option, or its nearest size is more than 10 % off.
    """
    name = kind.sizes.get(what)
    if name is None:
        raise ValueError(
            f"no option of this fusion changes its {what}, so match = '{what}' cannot be. Set sizes by hand"
        )

    def size(value: int) -> int | None:
        """None where the fusion cannot work with that value."""
        try:
            return size_of(kind, _changed(options, name, value), what, inputs=inputs, dim=dim)
        except ValueError:
            return None

    first = [size(value) for value in (1, 2, 3)]
    if None not in first and len(set(first)) == 1:
        raise ValueError(
            f"{name} changes no {what} with these options, so match = '{what}' cannot be. Set sizes by hand"
        )
    if what == "parameters" or _grows(first):
        value = _nearest_by_halving(size, wanted)
    else:
        value = _nearest(size, range(1, sum(shape.tokens for shape in inputs) + 1), wanted)
    got = None if value is None else size(value)
    if value is None or got is None:
        changed = _changed(options, name, 1)
        size_of(kind, changed, what, inputs=inputs, dim=dim)  # says why it cannot be
        raise ValueError(f"no value of {name} gives {wanted:,} {what}")
    match = Match(what=what, option=name, value=value, got=got, wanted=wanted)
    if abs(got - wanted) > CLOSE * wanted:
        raise ValueError(
            f"match = '{what}' is not to be had: {match} is the nearest. Change other options of the two fusions so "
            f"that they come closer"
        )
    return _changed(options, name, value), match


def _changed(options: Any, name: str, value: int) -> Any:
    """A copy with another value, checked like any other."""
    try:
        return type(options).model_validate({**options.model_dump(), name: value})
    except ValidationError as error:
        raise ValueError(str(error)) from None


def _nearest_by_halving(size: Callable[[int], int | None], wanted: int) -> int | None:
    """Where more of an option is more parameters, the value that comes nearest."""
    low, high = 1, 1
    while (got := size(high)) is not None and got < wanted and high < WIDEST:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        got = size(middle)
        low, high = (middle, high) if got is not None and got < wanted else (low, middle)
    return _nearest(size, (low, high), wanted)


def _grows(first: Sequence[int | None]) -> bool:
    """Whether any value can be, and more is more; not so where only divisors of a width can be."""
    return all(one is not None for one in first) and first == sorted(first, key=lambda one: one or 0)


def _nearest(size: Callable[[int], int | None], values: Sequence[int], wanted: int) -> int | None:
    found = [(abs(got - wanted), value) for value in values if (got := size(value)) is not None]
    return min(found)[1] if found else None
