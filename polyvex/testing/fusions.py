"""The kit of fusions: the tokens that were promised, in order, of each image by itself."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from polyvex.fusion import Fusion, FusionOptions
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
from polyvex.tokens import Grid, TokenShape, VisualLayout, VisualTokens

GRID = Grid(rows=4, cols=4)
INPUTS = (TokenShape(tokens=16, dim=12, grid=GRID), TokenShape(tokens=16, dim=8, grid=GRID))
"""What two encoders of one grid give; every fusion should take that."""

ODD_INPUTS = (
    INPUTS[:1],
    (INPUTS[0], TokenShape(tokens=6, dim=5)),
    (INPUTS[0], TokenShape(tokens=15, dim=5, grid=Grid(rows=3, cols=5)), INPUTS[1]),
)
"""One encoder, one without a grid, and three of several grids: a fusion takes them, or says why not."""

COUNTS = (1, 2, 3, 5)
"""Numbers of encoders that a fusion is tried with."""


class FusionKit:
    """All checks of a fusion at given options, for encoders of given shapes."""

    def __init__(
        self,
        fusion_class: type[Fusion],
        options: FusionOptions,
        *,
        inputs: Sequence[TokenShape] = INPUTS,
        dim: int = 16,
    ):
        self.fusion_class = fusion_class
        self.options = options
        self.inputs = inputs
        self.dim = dim
        self.name = fusion_class.__name__

    @cached_property
    def fusion(self) -> Fusion:
        """The fusion that is checked, in eval mode."""
        return fresh(self._make)

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next is asked for."""
        yield Check(name="declaration", run=self._declaration)
        yield Check(name="structure without memory", run=lambda: check_builds_on_meta(self._make, self.fusion))
        yield Check(name="shape of tokens", run=self._tokens)
        yield Check(name="inputs stay as they are", run=self._untouched)
        yield Check(name="flat images", run=self._flat)
        yield Check(name="same tokens twice", run=lambda: check_is_steady(self.fusion, self._outputs))
        yield Check(name="images do not mix", run=self._images_apart)
        yield Check(name="encoders by themselves", run=self._separate)
        yield Check(name="type of numbers", run=self._dtype)
        yield Check(name="device", run=self._device)
        yield Check(name="gradients", run=self._gradients)
        yield Check(name="other encoders", run=self._other_encoders)
        yield Check(name="state dict", run=lambda: check_saves_all(self._make, self.fusion, self._outputs))

    def _make(self) -> Fusion:
        return self.fusion_class(self.options, inputs=self.inputs, dim=self.dim)

    def _parts(self, images: int, dtype: torch.dtype = torch.float32) -> list[VisualTokens]:
        """Seeded tokens of each encoder."""
        generator = torch.Generator().manual_seed(0)
        return [
            VisualTokens.on_grid(torch.randn(images, one.tokens, one.dim, generator=generator).to(dtype), one.grid)
            for one in self.inputs
        ]

    def _outputs(self, fusion: Fusion) -> Outputs:
        with torch.no_grad():
            return {"tokens": _values(fusion, self._parts(3))}

    def _declaration(self) -> None:
        check_options_class(self.fusion_class, self.options, FusionOptions)
        for what, name in self.fusion_class.sizes.items():
            expect(what in ("parameters", "tokens"), f"{self.name}.sizes has {what!r}; expected parameters or tokens")
            expect(
                name in type(self.options).model_fields,
                f"{self.name}.sizes says that {name!r} changes its {what}; there is no such option",
            )
        told = self._describe(self.inputs)
        expect(self._describe(self.inputs) == told, f"{self.name}.describe differs from one call to the next")
        for inputs in self._others():
            try:
                self._describe(inputs)
            except ValueError as error:
                expect(bool(str(error).strip()), f"{self.name}.describe refuses {inputs} without a word; say why")
        check_refuses_by_value_error(self.name, self.options, "describe", self._describe_with)

    def _others(self) -> list[Sequence[TokenShape]]:
        """Other encoders: more, fewer, of other grids, and without a grid."""
        repeated = [[self.inputs[index % len(self.inputs)] for index in range(count)] for count in COUNTS]
        return [inputs for inputs in [*repeated, *ODD_INPUTS] if list(inputs) != list(self.inputs)]

    def _describe_with(self, options: FusionOptions) -> list[TokenShape]:
        return self.fusion_class.describe(options, inputs=self.inputs, dim=self.dim)

    def _describe(self, inputs: Sequence[TokenShape]) -> list[TokenShape]:
        """The runs that come out, checked by themselves.

        Raises:
            ValueError: if the fusion refuses these inputs.
        """
        try:
            runs = self.fusion_class.describe(self.options, inputs=inputs, dim=self.dim)
        except ValueError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{self.name}.describe fails for encoders of {_told(inputs)}: {type(error).__name__}: {error}. "
                "Refuse what cannot work by a ValueError that says the numbers and a way out"
            ) from error
        expect(
            isinstance(runs, list) and bool(runs) and all(isinstance(run, TokenShape) for run in runs),
            f"{self.name}.describe returned {runs!r}; expected a list of TokenShape, one per run",
        )
        for run in runs:
            expect(run.dim == self.dim, f"{self.name}.describe says a width of {run.dim}; it was asked for {self.dim}")
            expect(
                run.tokens >= 1 and (run.grid is None or run.grid.tokens == run.tokens),
                f"{self.name}.describe says {run.tokens} tokens on a grid of {run.grid}; expected rows × columns",
            )
        return runs

    def _tokens(self) -> None:
        for images in (1, 3):
            fused = self.fusion(self._parts(images))
            expect(
                isinstance(fused, VisualTokens), f"{self.name} returned {type(fused).__name__}; expected VisualTokens"
            )
            runs = self._describe(self.inputs)
            wanted = (images, sum(run.tokens for run in runs), self.dim)
            got = tuple(fused.values.shape)
            expect(got == wanted, f"{self.name} returned tokens of shape {got}; describe says {wanted}")
            expect(bool(fused.values.isfinite().all()), f"{self.name} returned values that are not finite")
            expect(
                _tells(fused, VisualLayout.of(runs)),
                f"{self.name}'s layout does not give its tokens the places that describe tells; use self.layout",
            )

    def _untouched(self) -> None:
        parts = self._parts(3)
        watched = {}
        for index, part in enumerate(parts):
            watched[f"the tokens of encoder #{index + 1}"] = part.values
            watched[f"the layout of encoder #{index + 1}"] = part.layout.coords

        def run() -> None:
            given = list(parts)
            self.fusion(given)
            same = [id(part) for part in given] == [id(part) for part in parts]
            expect(same, f"{self.name} changes the list of its inputs; copy it first: parts = list(parts)")

        check_untouched(self.fusion, watched, run)

    def _other_encoders(self) -> None:
        """What describe accepts works: one encoder, five encoders, several grids, no grid."""
        for inputs in self._others():
            kit = FusionKit(self.fusion_class, self.options, inputs=inputs, dim=self.dim)
            try:
                kit._describe(inputs)
            except ValueError:
                continue
            try:
                kit._tokens()
            except Exception as error:
                raise AssertionError(
                    f"{self.name} fails for {len(inputs)} encoders of {_told(inputs)}, which describe accepts: "
                    f"{type(error).__name__}: {error}. Loop over the inputs, or raise a ValueError in describe"
                ) from error

    def _flat(self) -> None:
        def run(values: Sequence[Tensor]) -> Outputs:
            parts = [VisualTokens.on_grid(value, one.grid) for value, one in zip(values, self.inputs, strict=True)]
            return _as_outputs(self.fusion, parts)

        check_flat(self.fusion, lambda level: [torch.full((2, one.tokens, one.dim), level) for one in self.inputs], run)

    def _separate(self) -> None:
        """``fuse_one`` of a separate fusion gives the run that the whole forward gives, for any number of images."""
        if not self.fusion_class.separate:
            return
        parts = self._parts(3)
        with torch.no_grad():
            whole = self.fusion(parts).values.split([run.tokens for run in self._describe(self.inputs)], dim=1)
            expect(
                len(whole) == len(parts),
                f"{self.name} is separate and describes {len(whole)} runs for {len(parts)} encoders; expected one each",
            )
            for index, part in enumerate(parts):
                check_same(
                    {"tokens": self.fusion.fuse_one(index, part.values[:2])},
                    {"tokens": whole[index][:2]},
                    f"{self.name}.fuse_one({index}, ...) differs from the run of encoder #{index + 1}",
                )

    def _device(self) -> None:
        parts = self._parts(2)

        def run(fusion: Any, place: Callable[[Tensor], Tensor]) -> Outputs:
            return _as_outputs(fusion, [VisualTokens(values=place(one.values), layout=one.layout) for one in parts])

        check_stays_on_device(self.fusion, run)

    def _images_apart(self) -> None:
        parts = self._parts(3)
        together = _values(self.fusion, parts)
        for order in ([2, 0, 1], [1], [0, 0, 2]):
            picked = [VisualTokens(values=part.values[order], layout=part.layout) for part in parts]
            check_same(
                {"tokens": _values(self.fusion, picked)},
                {"tokens": together[order]},
                f"{self.name}: an image's tokens depend on the other images of its batch",
            )

    def _dtype(self) -> None:
        for dtype in (torch.float32, torch.float64):
            try:
                got = _values(self._make().eval().to(dtype), self._parts(1, dtype)).dtype
            except RuntimeError as error:
                raise AssertionError(f"{self.name} in {dtype} fails: {error}") from error
            expect(got == dtype, f"{self.name} in {dtype} returned {got}; expected the type that came in")

    def _gradients(self) -> None:
        parts = self._parts(2)
        for part in parts:
            part.values.requires_grad_()
        check_learns(self.fusion, partial(_as_outputs, self.fusion, parts))
        for index, part in enumerate(parts):
            expect(
                part.values.grad is not None,
                f"{self.name} gives no gradient to the tokens of encoder #{index + 1}; does it leave them out?",
            )


def check_fusion(
    fusion_class: type[Fusion], options: FusionOptions, *, inputs: Sequence[TokenShape] = INPUTS, dim: int = 16
) -> Fusion:
    """Hold a fusion to its contract.

    Args:
        inputs: what the encoders give; two of one grid unless told otherwise.
        dim: width of the language model.

    Returns:
        The fusion that was checked, in eval mode, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = FusionKit(fusion_class, options, inputs=inputs, dim=dim)
    run_all(kit)
    return kit.fusion


def _values(fusion: Fusion, parts: list[VisualTokens]) -> Tensor:
    return fusion(parts).values


def _as_outputs(fusion: Fusion, parts: list[VisualTokens]) -> Outputs:
    return {"tokens": _values(fusion, parts)}


def _tells(fused: VisualTokens, layout: VisualLayout) -> bool:
    """Whether tokens have the sources and places of a layout."""
    return torch.equal(fused.layout.source.cpu(), layout.source) and torch.equal(
        fused.layout.coords.cpu(), layout.coords
    )


def _told(inputs: Sequence[TokenShape]) -> str:
    return " and ".join(f"{one.tokens} tokens ({f'grid {one.grid}' if one.grid else 'no grid'})" for one in inputs)
