"""The kit of position schemes: a position for each token of a run, within what the run takes up, the same each time."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from polyvex.positions import PositionOptions, PositionScheme, RunPositions
from polyvex.testing.checks import Check, run_all
from polyvex.testing.declarations import check_options_class
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
from polyvex.tokens import Grid, TokenShape, VisualLayout

DIM = 8
SHAPES = [
    TokenShape(tokens=6, dim=DIM, grid=Grid(rows=2, cols=3)),
    TokenShape(tokens=2, dim=DIM, grid=Grid(rows=2, cols=1)),
    TokenShape(tokens=2, dim=DIM),
]
"""What an image becomes: tokens of three encoders, the last of them without a grid."""


class PositionKit:
    """All checks of a position scheme at given options."""

    def __init__(self, scheme_class: type[PositionScheme], options: PositionOptions):
        self.scheme_class = scheme_class
        self.options = options
        self.name = scheme_class.__name__
        self.layout = VisualLayout.of(SHAPES)

    @cached_property
    def scheme(self) -> PositionScheme:
        """The scheme that is checked, in eval mode."""
        return fresh(self._make)

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next is asked for."""
        kind, options = self.scheme_class, self.options
        yield Check(name="declaration", run=lambda: check_options_class(kind, options, PositionOptions))
        yield Check(name="structure without memory", run=lambda: check_builds_on_meta(self._make, self.scheme))
        yield Check(name="positions of a run", run=self._runs)
        yield Check(name="runs do not mix", run=self._apart)
        yield Check(name="same ids twice", run=lambda: check_is_steady(self.scheme, self._outputs))
        yield Check(name="what is kept in embeddings", run=self._embeddings)
        yield Check(name="gradients", run=self._gradients)
        yield Check(name="state dict", run=lambda: check_saves_all(self._make, self.scheme, self._outputs))

    def _make(self) -> PositionScheme:
        return self.scheme_class(self.options, layout=self.layout, dim=DIM)

    def _within_of(self, scheme: PositionScheme, index: int) -> RunPositions:
        """What a scheme says of one run of the image."""
        return scheme.within(self.layout.pick(self.layout.run == index), image=self.layout)

    def _embed(self, scheme: PositionScheme, images: Tensor) -> Tensor:
        """What a scheme makes of the embeddings of images [images tokens dim]."""
        return scheme.embed(images, self.layout)

    def _outputs(self, scheme: PositionScheme) -> Outputs:
        runs = [self._within_of(scheme, index) for index in range(len(SHAPES))]
        with torch.no_grad():
            embedded = self._embed(scheme, self._images_of(2))
        ids = torch.cat([run.offsets.float() for run in runs])
        return {"positions": ids, "extents": torch.tensor([run.extent for run in runs]), "embeddings": embedded}

    def _images_of(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.layout.tokens, DIM, generator=generator).to(dtype)

    def _runs(self) -> None:
        for index, shape in enumerate(SHAPES):
            found = self._within_of(self.scheme, index)
            expect(
                isinstance(found, RunPositions),
                f"{self.name}.within returned {type(found).__name__}; want RunPositions",
            )
            got = tuple(found.offsets.shape)
            expect(
                got == (shape.tokens,),
                f"{self.name}.within gives offsets of shape {got} for a run of {shape.tokens} tokens; want one each",
            )
            offsets = found.offsets.tolist()
            expect(
                bool(found.offsets.isfinite().all()) and min(offsets) >= 0,
                f"{self.name}.within gives offsets below the run's start, or not finite: {offsets}",
            )
            expect(
                found.extent > max(offsets),
                f"{self.name}.within says that a run takes up {found.extent} positions, but its offsets are {offsets}; "
                f"what comes behind it would share them",
            )

    def _apart(self) -> None:
        """A run's positions are the same whichever other images and runs were asked for before."""
        first = [self._within_of(self.scheme, index) for index in range(len(SHAPES))]
        for index in reversed(range(len(SHAPES))):
            again = self._within_of(self.scheme, index)
            same = torch.equal(again.offsets, first[index].offsets) and again.extent == first[index].extent
            expect(same, f"{self.name}.within answers differently for the same run, depending on what was asked before")

    def _embeddings(self) -> None:
        for dtype in (torch.float32, torch.float64):
            images = self._images_of(3, dtype)
            scheme = fresh(self._make).to(dtype)
            embedded = self._embed(scheme, images)
            got = (tuple(embedded.shape), embedded.dtype)
            expect(got == (tuple(images.shape), dtype), f"{self.name}.embed returned {got}; expected what came in")
            check_same(
                {"embeddings": self._embed(scheme, images[[2, 0]])},
                {"embeddings": embedded[[2, 0]]},
                f"{self.name}.embed: an image's embeddings depend on the other images of its batch",
            )

    def _gradients(self) -> None:
        check_learns(self.scheme, lambda: {"embeddings": self._embed(self.scheme, self._images_of(2))})


def check_position_scheme(scheme_class: type[PositionScheme], options: PositionOptions) -> PositionScheme:
    """Hold a position scheme to its contract.

    Returns:
        The scheme that was checked, in eval mode, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = PositionKit(scheme_class, options)
    run_all(kit)
    return kit.scheme
