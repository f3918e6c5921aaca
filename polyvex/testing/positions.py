"""The kit of position schemes: a position for each token of a run, within what the run takes up, the same each time."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from polyvex.positions import PositionOptions, PositionScheme, RunPositions
from polyvex.testing.checks import Check, run_all
from polyvex.testing.declarations import check_options_class
from polyvex.testing.devices import check_stays_on_device
from polyvex.testing.elsewhere import Elsewhere, MixedDevicesError
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
from polyvex.tokens import TEXT, Grid, TokenShape, VisualLayout

DIM = 8
SHAPES = [
    TokenShape(tokens=6, dim=DIM, grid=Grid(rows=2, cols=3)),
    TokenShape(tokens=2, dim=DIM, grid=Grid(rows=2, cols=1)),
    TokenShape(tokens=2, dim=DIM),
]
"""What an image becomes: tokens of three encoders, the last of them without a grid."""


def other_layouts(*, grid_only: bool) -> dict[str, VisualLayout]:
    """Layouts of images that are laid out otherwise, each with a description."""
    wide = TokenShape(tokens=6, dim=DIM, grid=Grid(rows=2, cols=3))
    ends = torch.tensor([[0, 0], [0, 1], [0, TEXT], [1, 0], [1, 1], [1, TEXT]])
    tiles = [
        VisualLayout.on(wide.coords(), source=0, view=0),
        VisualLayout.on(ends, source=0, view=1),
        VisualLayout.separator(1),
        VisualLayout.on(wide.coords(), source=1, view=0),
    ]
    found = {
        "an image of one token": VisualLayout.of([TokenShape(tokens=1, dim=DIM, grid=Grid(rows=1, cols=1))]),
        "an image of one run": VisualLayout.of([wide]),
        "an image of five runs": VisualLayout.of([wide] * 5),
        "an image with tiles, tokens that end rows, and a separator": VisualLayout.joined(tiles),
    }
    return found if grid_only else {**found, "tokens without a grid": VisualLayout.of([TokenShape(tokens=5, dim=DIM)])}


class PositionKit:
    """All checks of a position scheme at given options, for images that become tokens of given shapes.

    A scheme that needs a grid gets only tokens that have one, as recipes guarantee.
    """

    def __init__(
        self, scheme_class: type[PositionScheme], options: PositionOptions, *, layout: VisualLayout | None = None
    ):
        self.scheme_class = scheme_class
        self.options = options
        self.name = scheme_class.__name__
        needs_grid = getattr(scheme_class, "needs_grid", False)
        self.layout = layout or VisualLayout.of([shape for shape in SHAPES if shape.grid or not needs_grid])

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
        yield Check(name="inputs stay as they are", run=self._untouched)
        yield Check(name="runs do not mix", run=self._apart)
        yield Check(name="same ids twice", run=lambda: check_is_steady(self.scheme, self._outputs))
        yield Check(name="what is kept in embeddings", run=self._embeddings)
        yield Check(name="flat images", run=self._flat)
        yield Check(name="device", run=self._device)
        yield Check(name="gradients", run=self._gradients)
        yield Check(name="other images", run=self._other_images)
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
        runs = [self._within_of(scheme, index) for index in self._indices()]
        with torch.no_grad():
            embedded = self._embed(scheme, self._images_of(2))
        ids = torch.cat([run.offsets.float() for run in runs])
        return {"positions": ids, "extents": torch.tensor([run.extent for run in runs]), "embeddings": embedded}

    def _images_of(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.layout.tokens, DIM, generator=generator).to(dtype)

    def _indices(self) -> list[int]:
        """Numbers of the runs."""
        return [run for run in self.layout.run.unique().tolist() if run != TEXT]

    def _runs(self) -> None:
        for index in self._indices():
            tokens = int((self.layout.run == index).sum())
            found = self._within_of(self.scheme, index)
            expect(
                isinstance(found, RunPositions),
                f"{self.name}.within returned {type(found).__name__}; want RunPositions",
            )
            got = tuple(found.offsets.shape)
            expect(
                got == (tokens,),
                f"{self.name}.within gives offsets of shape {got} for a run of {tokens} tokens; want one each",
            )
            expect(
                found.offsets.device == self.layout.coords.device,
                f"{self.name}.within gives offsets on {found.offsets.device} for a layout on "
                f"{self.layout.coords.device}; create them on run.coords.device",
            )
            expect(
                isinstance(found.extent, int | float)
                and not isinstance(found.extent, bool)
                and math.isfinite(found.extent),
                f"{self.name}.within gives the extent {found.extent!r} ({type(found.extent).__name__}); "
                "expected a finite Python number: int(offsets.max()) + 1",
            )
            offsets = found.offsets.tolist()
            expect(
                bool(found.offsets.isfinite().all()) and min(offsets) > -1,
                f"{self.name}.within gives offsets that are not finite, or not above -1, the position in front of the "
                f"run: {offsets}",
            )
            expect(
                found.extent > max(offsets),
                f"{self.name}.within says that a run takes up {found.extent} positions, but its offsets are {offsets}; "
                f"what comes behind it would share them",
            )

    def _apart(self) -> None:
        """A run's positions are the same whichever other images and runs were asked for before."""
        first = {index: self._within_of(self.scheme, index) for index in self._indices()}
        for index in reversed(first):
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

    def _untouched(self) -> None:
        images = self._images_of(2)
        index = self._indices()[0]
        run = self.layout.pick(self.layout.run == index)
        watched = {"the embeddings": images}
        for owner, layout in (("the image's layout", self.layout), ("the run's layout", run)):
            watched |= {f"{owner}.{name}": value for name, value in vars(layout).items()}
        check_untouched(self.scheme, watched, lambda: self._embed(self.scheme, images))
        check_untouched(self.scheme, watched, lambda: self.scheme.within(run, image=self.layout))

    def _other_images(self) -> None:
        """It works for one token, for one run, for many runs, and for tiles with tokens that end rows."""
        for what, layout in other_layouts(grid_only=self.scheme_class.needs_grid).items():
            kit = PositionKit(self.scheme_class, self.options, layout=layout)
            try:
                kit._runs()
                kit._embeddings()
            except Exception as error:
                raise AssertionError(
                    f"{self.name} fails for {what}: {type(error).__name__}: {error}. "
                    "Read the number of tokens, rows and columns from the layout"
                ) from error

    def _flat(self) -> None:
        def run(values: Sequence[Tensor]) -> Outputs:
            return {"embeddings": self._embed(self.scheme, values[0])}

        check_flat(self.scheme, lambda level: [torch.full((2, self.layout.tokens, DIM), level)], run)

    def _device(self) -> None:
        """Layouts stay on the CPU, embeddings are where the model is."""
        check_stays_on_device(
            self.scheme, lambda scheme, place: {"embeddings": scheme.embed(place(self._images_of(2)), self.layout)}
        )
        check_stays_on_device(self.scheme, lambda scheme, place: self._placed_by(scheme))

    def _placed_by(self, scheme: PositionScheme) -> Outputs:
        for index in self._indices():
            offsets = self._within_of(scheme, index).offsets
            if isinstance(offsets, Elsewhere):
                raise MixedDevicesError("within gives offsets on the GPU for a layout on the CPU")
        return {}

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
