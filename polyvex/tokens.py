"""The values that travel from images to logits. All are frozen: each step returns a new one.

Axis names: ``images`` counts images of a batch, ``tokens`` visual tokens of one image, ``batch`` and ``seq`` are
the language model's axes, ``dim`` is a width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from polyvex.errors import ContractError

TEXT = -1
"""The image, run, source, row and column of a place that holds no visual token."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A row-major grid of visual tokens, without class or register tokens."""

    rows: int
    cols: int

    @property
    def tokens(self) -> int:
        """Number of places on the grid."""
        return self.rows * self.cols

    def coords(self) -> Int[Tensor, "tokens 2"]:
        """Row and column of each token, in row-major order."""
        rows, cols = torch.meshgrid(torch.arange(self.rows), torch.arange(self.cols), indexing="ij")
        return torch.stack([rows.reshape(-1), cols.reshape(-1)], dim=-1)

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


@dataclass(frozen=True, kw_only=True)
class TokenShape:
    """What one encoder, or one encoder's run after fusion, emits per image: known before anything is built."""

    tokens: int
    dim: int
    grid: Grid | None = None

    def coords(self) -> Int[Tensor, "tokens 2"]:
        """Row and column of each token; -1 where there is no grid."""
        if self.grid is None:
            return torch.full((self.tokens, 2), TEXT)
        return self.grid.coords()


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualLayout:
    """Where each token of one image comes from, in the order in which the language model reads them.

    ``run`` counts the runs that come out of the fusion (one per encoder for most), ``source`` is the index of the
    encoder in the order of the recipe, ``view`` counts that encoder's views of the image (the whole image, then its
    tiles put together), ``coords`` is the row and column there: -1 without a grid, and the column alone is -1 for the
    token that ends a row. A token that separates two runs is -1 throughout.
    """

    run: Int[Tensor, " tokens"]
    source: Int[Tensor, " tokens"]
    view: Int[Tensor, " tokens"]
    coords: Int[Tensor, "tokens 2"]

    @classmethod
    def of(cls, shapes: Sequence[TokenShape]) -> "VisualLayout":
        """Lay the runs of several encoders side by side, in order; each has one view."""
        return cls.joined([cls.on(shape.coords(), source=index) for index, shape in enumerate(shapes)])

    @classmethod
    def on(
        cls, coords: Int[Tensor, "tokens 2"], *, source: int, view: int = 0, run: int | None = None
    ) -> "VisualLayout":
        """The tokens of one view of one encoder; its run has the encoder's index unless told otherwise."""
        tokens = len(coords)
        return cls(
            run=torch.full((tokens,), source if run is None else run),
            source=torch.full((tokens,), source),
            view=torch.full((tokens,), view),
            coords=coords,
        )

    @classmethod
    def separator(cls, tokens: int) -> "VisualLayout":
        """Tokens between two runs."""
        return cls.on(torch.full((tokens, 2), TEXT), source=TEXT, view=TEXT)

    @classmethod
    def joined(cls, layouts: Sequence["VisualLayout"]) -> "VisualLayout":
        """Several layouts, one behind the other."""
        return cls(
            run=torch.cat([layout.run for layout in layouts]),
            source=torch.cat([layout.source for layout in layouts]),
            view=torch.cat([layout.view for layout in layouts]),
            coords=torch.cat([layout.coords for layout in layouts]),
        )

    def pick(self, index: Tensor) -> "VisualLayout":
        """Some of the tokens, by number or mask, in that order."""
        return VisualLayout(
            run=self.run[index], source=self.source[index], view=self.view[index], coords=self.coords[index]
        )

    @property
    def tokens(self) -> int:
        """Number of tokens, separators among them."""
        return self.source.shape[0]


Layouts = VisualLayout | Sequence[VisualLayout]
"""The layout that all images share, or one for each image, in order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualTokens:
    """Tokens of some images, all laid out alike: from one encoder, or from all of them after fusion.

    With tiles, each tile is an image by itself until the views are put together behind the fusion.
    """

    values: Float[Tensor, "images tokens dim"]
    layout: VisualLayout

    @classmethod
    def on_grid(cls, values: Float[Tensor, "images tokens dim"], grid: Grid | None) -> "VisualTokens":
        """One encoder's tokens, row-major on ``grid``; ``None`` for tokens without a place in the image.

        Raises:
            ContractError: if there are more or fewer tokens than places on the grid.
        """
        if grid is not None and values.shape[1] != grid.tokens:
            raise ContractError(
                f"got {values.shape[1]} tokens for a {grid} grid, expected {grid.tokens}. Were class or register "
                f"tokens left in?"
            )
        shape = TokenShape(tokens=values.shape[1], dim=values.shape[2], grid=grid)
        return cls(values=values, layout=VisualLayout.of([shape]))


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualSequence:
    """What the language model reads of some images, one image behind the other."""

    values: Float[Tensor, "tokens dim"]
    layouts: Layouts


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceLayout:
    """What sits at each place of the language model's input. Made once, at the splice.

    ``image`` counts the images of a row from 0, ``number`` those of the whole batch, ``place`` the tokens of an image;
    all are -1 on text. ``layouts`` are those of the images. ``valid`` is false on padding. ``document`` counts the
    texts that are packed into one row; all are 0 where each row is one text.
    """

    image: Int[Tensor, "batch seq"]
    number: Int[Tensor, "batch seq"]
    place: Int[Tensor, "batch seq"]
    valid: Bool[Tensor, "batch seq"]
    document: Int[Tensor, "batch seq"]
    layouts: Layouts

    @cached_property
    def run(self) -> Int[Tensor, "batch seq"]:
        """As :attr:`VisualLayout.run`; -1 on text."""
        return self._look_up(self._flat.run)

    @cached_property
    def source(self) -> Int[Tensor, "batch seq"]:
        """As :attr:`VisualLayout.source`; -1 on text."""
        return self._look_up(self._flat.source)

    @cached_property
    def view(self) -> Int[Tensor, "batch seq"]:
        """As :attr:`VisualLayout.view`; -1 on text."""
        return self._look_up(self._flat.view)

    @cached_property
    def coords(self) -> Int[Tensor, "batch seq 2"]:
        """As :attr:`VisualLayout.coords`; -1 on text."""
        return self._look_up(self._flat.coords)

    @cached_property
    def flat(self) -> Int[Tensor, "batch seq"]:
        """Where a token is in the layouts of all images, one behind the other; 0 on text."""
        if isinstance(self.layouts, VisualLayout):
            return self.place.clamp(min=0)
        starts = torch.tensor([0, *(layout.tokens for layout in self.layouts)], device=self.place.device).cumsum(dim=0)
        return (starts[self.number.clamp(min=0)] + self.place).clamp(min=0)

    @cached_property
    def _flat(self) -> VisualLayout:
        if isinstance(self.layouts, VisualLayout):
            return self.layouts
        return VisualLayout.joined(self.layouts or [VisualLayout.separator(1)])

    def _look_up(self, values: Int[Tensor, "tokens *more"]) -> Int[Tensor, "batch seq *more"]:
        found = values.to(self.place.device)[self.flat]
        text = self.place == TEXT
        return found.masked_fill(text.reshape(*text.shape, *[1] * (found.ndim - 2)), TEXT)


@dataclass(frozen=True, kw_only=True, eq=False)
class LMInputs:
    """Text and visual embeddings in one sequence, with their layout."""

    embeds: Float[Tensor, "batch seq dim"]
    layout: SequenceLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class Positions:
    """Position ids, which may repeat or have a fraction (float32), and where decoding goes on."""

    ids: Real[Tensor, "batch seq"]
    next_id: Int[Tensor, " batch"]
