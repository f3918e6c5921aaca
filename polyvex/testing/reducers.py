"""The kit of reducers: the tokens that were promised, of each image by itself, and a gradient for every weight."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from polyvex.reducers import Reducer, ReducerOptions
from polyvex.testing.checks import Check, run_all
from polyvex.testing.declarations import check_options_class
from polyvex.testing.devices import check_stays_on_device
from polyvex.testing.inputs import check_flat, check_untouched
from polyvex.testing.modules import (
    Outputs,
    check_builds_on_meta,
    check_is_steady,
    check_learns,
    check_same,
    check_saves_all,
    fresh,
)
from polyvex.testing.probes import expect
from polyvex.testing.variants import check_refuses_by_value_error
from polyvex.tokens import Grid, TokenShape

SHAPE = TokenShape(tokens=64, dim=16, grid=Grid(rows=8, cols=8))
"""What an encoder emits; every reducer should take that."""

ODD_SHAPES = (TokenShape(tokens=15, dim=6, grid=Grid(rows=3, cols=5)), TokenShape(tokens=7, dim=5))
"""An odd grid, and tokens without one: a reducer takes them, or says why not."""


class ReducerKit:
    """All checks of a reducer at given options, for tokens of a given shape."""

    def __init__(self, reducer_class: type[Reducer], options: ReducerOptions, *, shape: TokenShape = SHAPE):
        self.reducer_class = reducer_class
        self.options = options
        self.given = shape
        self.name = reducer_class.__name__

    @cached_property
    def reducer(self) -> Reducer:
        """The reducer that is checked, in eval mode."""
        return fresh(self._make)

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next is asked for."""
        yield Check(name="declaration", run=self._declaration)
        yield Check(name="structure without memory", run=lambda: check_builds_on_meta(self._make, self.reducer))
        yield Check(name="shape of tokens", run=self._tokens)
        yield Check(name="inputs stay as they are", run=self._untouched)
        yield Check(name="flat images", run=self._flat)
        yield Check(name="same tokens twice", run=lambda: check_is_steady(self.reducer, self._outputs))
        yield Check(name="images do not mix", run=self._apart)
        yield Check(name="type of numbers", run=self._dtype)
        yield Check(name="device", run=self._device)
        yield Check(name="gradients", run=self._gradients)
        yield Check(name="other encoders", run=self._other_encoders)
        yield Check(name="state dict", run=lambda: check_saves_all(self._make, self.reducer, self._outputs))

    def _make(self) -> Reducer:
        return self.reducer_class(self.options, shape=self.given)

    def _values(self, images: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Seeded tokens of some images."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(images, self.given.tokens, self.given.dim, generator=generator).to(dtype)

    def _outputs(self, reducer: Reducer) -> Outputs:
        with torch.no_grad():
            return {"tokens": reducer(self._values(3))}

    def _declaration(self) -> None:
        check_options_class(self.reducer_class, self.options, ReducerOptions)
        told = self._describe(self.given)
        expect(self._describe(self.given) == told, f"{self.name}.describe differs from one call to the next")
        for shape in ODD_SHAPES:
            try:
                self._describe(shape)
            except ValueError as error:
                expect(bool(str(error).strip()), f"{self.name}.describe refuses {shape} without a word; say why")
        check_refuses_by_value_error(self.name, self.options, "describe", self._describe_with)

    def _describe_with(self, options: ReducerOptions) -> TokenShape:
        return self.reducer_class.describe(options, shape=self.given)

    def _describe(self, shape: TokenShape) -> TokenShape:
        """What comes out, checked by itself.

        Raises:
            ValueError: if the reducer refuses this shape.
        """
        try:
            told = self.reducer_class.describe(self.options, shape=shape)
        except ValueError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{self.name}.describe fails for {shape}: {type(error).__name__}: {error}. Refuse what cannot work by "
                "a ValueError that says the numbers and a way out"
            ) from error
        expect(isinstance(told, TokenShape), f"{self.name}.describe returned {told!r}; expected a TokenShape")
        expect(
            told.tokens >= 1 and (told.grid is None or told.grid.tokens == told.tokens),
            f"{self.name}.describe says {told.tokens} tokens on a grid of {told.grid}; expected rows × columns",
        )
        return told

    def _tokens(self) -> None:
        for images in (1, 3):
            reduced = self.reducer(self._values(images))
            told = self._describe(self.given)
            got, wanted = tuple(reduced.shape), (images, told.tokens, told.dim)
            expect(got == wanted, f"{self.name} returned tokens of shape {got}; describe says {wanted}")
            expect(bool(reduced.isfinite().all()), f"{self.name} returned values that are not finite")

    def _untouched(self) -> None:
        values = self._values(3)
        check_untouched(self.reducer, {"the tokens": values}, lambda: self.reducer(values))

    def _other_encoders(self) -> None:
        """What describe accepts works: other grids, and tokens without a grid."""
        for shape in ODD_SHAPES:
            kit = ReducerKit(self.reducer_class, self.options, shape=shape)
            try:
                kit._describe(shape)
            except ValueError:
                continue
            try:
                kit._tokens()
            except Exception as error:
                raise AssertionError(
                    f"{self.name} fails for {shape}, which describe accepts: {type(error).__name__}: {error}. "
                    "Raise a ValueError in describe for shapes that cannot work"
                ) from error

    def _flat(self) -> None:
        shape = (2, self.given.tokens, self.given.dim)
        check_flat(
            self.reducer,
            lambda level: [torch.full(shape, level)],
            lambda values: {"tokens": self.reducer(values[0])},
        )

    def _device(self) -> None:
        check_stays_on_device(self.reducer, lambda reducer, place: {"tokens": reducer(place(self._values(2)))})

    def _apart(self) -> None:
        values = self._values(3)
        together = self.reducer(values)
        for order in ([2, 0, 1], [1], [0, 0, 2]):
            check_same(
                {"tokens": self.reducer(values[order])},
                {"tokens": together[order]},
                f"{self.name}: an image's tokens depend on the other images of its batch",
            )

    def _dtype(self) -> None:
        for dtype in (torch.float32, torch.float64):
            got = self._make().eval().to(dtype)(self._values(1, dtype)).dtype
            expect(got == dtype, f"{self.name} in {dtype} returned {got}; expected the type that came in")

    def _gradients(self) -> None:
        values = self._values(2).requires_grad_()
        check_learns(self.reducer, lambda: {"tokens": self.reducer(values)})
        self.reducer(values).square().sum().backward()
        expect(values.grad is not None, f"{self.name} gives no gradient to its tokens; an encoder could not learn")


def check_reducer(reducer_class: type[Reducer], options: ReducerOptions, *, shape: TokenShape = SHAPE) -> Reducer:
    """Hold a reducer to its contract.

    Args:
        shape: what the encoder emits: 64 tokens on 8 × 8, 16 wide, unless told otherwise.

    Returns:
        The reducer that was checked, in eval mode, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = ReducerKit(reducer_class, options, shape=shape)
    run_all(kit)
    return kit.reducer
