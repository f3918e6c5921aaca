"""The kit of position schemes: ids that count text one by one, go on behind images, and do not see padding."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from polyvex.positions import PositionOptions, PositionScheme
from polyvex.sequence import lay_out
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
from polyvex.tokens import Grid, Positions, SequenceLayout, TokenShape, VisualLayout

DIM = 8
SHAPES = [
    TokenShape(tokens=6, dim=DIM, grid=Grid(rows=2, cols=3)),
    TokenShape(tokens=2, dim=DIM, grid=Grid(rows=2, cols=1)),
    TokenShape(tokens=2, dim=DIM),
]
"""What an image becomes: tokens of three encoders, the last of them without a grid."""

IMAGE = "i" * sum(shape.tokens for shape in SHAPES)
ROWS = ("ttttt", f"t{IMAGE}tt", f"{IMAGE}t", f"t{IMAGE}", f"tt{IMAGE}{IMAGE}t", f"{IMAGE}t{IMAGE}")
"""Sequences: ``t`` is a text token, ``i`` a visual one, and ``.`` is padding."""


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
        yield Check(name="shape of ids", run=self._shape)
        yield Check(name="text is counted", run=self._text)
        yield Check(name="images begin anew", run=self._images)
        yield Check(name="where decoding goes on", run=self._next_id)
        yield Check(name="padding changes nothing", run=self._padding)
        yield Check(name="sequences do not mix", run=self._rows_apart)
        yield Check(name="same ids twice", run=lambda: check_is_steady(self.scheme, self._outputs))
        yield Check(name="what is kept in embeddings", run=self._embeddings)
        yield Check(name="gradients", run=self._gradients)
        yield Check(name="state dict", run=lambda: check_saves_all(self._make, self.scheme, self._outputs))

    def _make(self) -> PositionScheme:
        return self.scheme_class(self.options, layout=self.layout, dim=DIM)

    def _laid(self, *rows: str) -> SequenceLayout:
        """What sits at each place of these sequences, filled up at the right."""
        longest = max(len(row) for row in rows)
        marks = [row.ljust(longest, ".") for row in rows]
        visual = torch.tensor([[mark == "i" for mark in row] for row in marks])
        valid = torch.tensor([[mark != "." for mark in row] for row in marks])
        return lay_out(visual, valid, self.layout)

    def _assign(self, *rows: str) -> Positions:
        return self.scheme.assign(self._laid(*rows))

    def _ids(self, row: str) -> Tensor:
        return self._assign(row).ids[0]

    def _embed(self, scheme: PositionScheme, images: Tensor) -> Tensor:
        """What a scheme makes of the embeddings of images [images tokens dim]."""
        return scheme.embed(images, self.layout)

    def _outputs(self, scheme: PositionScheme) -> Outputs:
        positions = scheme.assign(self._laid(*ROWS))
        with torch.no_grad():
            embedded = self._embed(scheme, self._images_of(2))
        return {"ids": positions.ids, "next_id": positions.next_id, "embeddings": embedded}

    def _images_of(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, len(IMAGE), DIM, generator=generator).to(dtype)

    def _shape(self) -> None:
        positions = self._assign(*ROWS)
        expect(
            isinstance(positions, Positions), f"{self.name}.assign returned {type(positions).__name__}; want Positions"
        )
        wanted = (len(ROWS), max(len(row) for row in ROWS))
        got = tuple(positions.ids.shape)
        expect(got == wanted, f"{self.name}.assign gives ids of shape {got} for {wanted[0]} sequences; want {wanted}")
        got = tuple(positions.next_id.shape)
        expect(got == wanted[:1], f"{self.name}.assign gives next_id of shape {got}; expected one per sequence")

    def _text(self) -> None:
        """Text is counted by ones from 0, and comes behind all that is before it."""
        for row in ROWS:
            ids = self._ids(row)
            expect(ids[0].item() == 0, f"{self.name}: the first id of a sequence is {ids[0].item()}; expected 0")
            expect(bool((ids.diff() >= 0).all()), f"{self.name}: ids fall along a sequence: {ids.tolist()}")
            for place in range(1, len(row)):
                step = (ids[place] - ids[place - 1]).item()
                if row[place] == "t":
                    expect(step > 0, f"{self.name}: text shares the position of what is before it: {ids.tolist()}")
                if row[place - 1 : place + 1] == "tt":
                    expect(step == 1, f"{self.name}: from text to text the id grows by {step}; expected 1")

    def _images(self) -> None:
        """The first token of an image shares no position with text, nor with another image."""
        for row, place in ((f"t{IMAGE}", 1), (f"{IMAGE}{IMAGE}", len(IMAGE))):
            ids = self._ids(row)
            expect(
                bool(ids[place] > ids[place - 1]),
                f"{self.name}: an image shares the position of what is before it: {ids.tolist()}",
            )

    def _next_id(self) -> None:
        positions = self._assign(*ROWS)
        for index, row in enumerate(ROWS):
            last = positions.ids[index, len(row) - 1].item()
            told = positions.next_id[index].item()
            expect(told == last + 1, f"{self.name}: next_id is {told} behind the id {last}; expected {last + 1}")

    def _padding(self) -> None:
        for row in ROWS:
            plain, told = self._ids(row), self._assign(row).next_id[0]
            for side, padded, kept in (("left", f"...{row}", slice(3, None)), ("right", f"{row}...", slice(None, -3))):
                positions = self._assign(padded)
                same = torch.equal(positions.ids[0, kept], plain) and torch.equal(positions.next_id[0], told)
                expect(same, f"{self.name}: padding on the {side} changes ids or next_id; look at layout.valid")

    def _rows_apart(self) -> None:
        together = self._assign(*ROWS)
        for index, row in enumerate(ROWS):
            alone = self._assign(row)
            same = torch.equal(together.ids[index, : len(row)], alone.ids[0])
            same &= torch.equal(together.next_id[index], alone.next_id[0])
            expect(same, f"{self.name}: the ids of a sequence depend on the other sequences of its batch")

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
