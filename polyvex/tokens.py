"""The values that travel from images to logits. All are frozen: each step returns a new one.

Axis names: ``images`` counts images of a batch, ``tokens`` visual tokens of one image, ``batch`` and ``seq`` are
the language model's axes, ``dim`` is a width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from polyvex.errors import ContractError

TEXT = -1
"""The image, source, row and column of a place that holds no visual token."""


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
    """Where each visual token of one image comes from.

    ``source`` is the index of its encoder in the order of the recipe, ``view`` counts that encoder's views of the
    image (the whole image, then its tiles put together), ``coords`` is its row and column there: -1 without a grid,
    and the column alone is -1 for the token that ends a row.
    """

    source: Int[Tensor, " tokens"]
    view: Int[Tensor, " tokens"]
    coords: Int[Tensor, "tokens 2"]

    @classmethod
    def of(cls, shapes: Sequence[TokenShape]) -> "VisualLayout":
        """Lay the runs of several encoders side by side, in order; each has one view."""
        return cls.joined([cls.on(shape.coords(), source=index) for index, shape in enumerate(shapes)])

    @classmethod
    def on(cls, coords: Int[Tensor, "tokens 2"], *, source: int, view: int = 0) -> "VisualLayout":
        """The tokens of one view of one encoder."""
        tokens = len(coords)
        return cls(source=torch.full((tokens,), source), view=torch.full((tokens,), view), coords=coords)

    @classmethod
    def joined(cls, layouts: Sequence["VisualLayout"]) -> "VisualLayout":
        """Several layouts, one behind the other."""
        return cls(
            source=torch.cat([layout.source for layout in layouts]),
            view=torch.cat([layout.view for layout in layouts]),
            coords=torch.cat([layout.coords for layout in layouts]),
        )

    @property
    def tokens(self) -> int:
        """Number of visual tokens."""
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
    """What sits at each place of the language model's input.

    ``image`` counts the images of a row from 0, ``source``, ``view`` and ``coords`` are as in :class:`VisualLayout`;
    all are -1 on text. ``valid`` is false on padding. Made once, at the splice; position schemes, masks and routing
    statistics read it.
    """

    image: Int[Tensor, "batch seq"]
    source: Int[Tensor, "batch seq"]
    view: Int[Tensor, "batch seq"]
    coords: Int[Tensor, "batch seq 2"]
    valid: Bool[Tensor, "batch seq"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LMInputs:
    """Text and visual embeddings in one sequence, with their layout."""

    embeds: Float[Tensor, "batch seq dim"]
    layout: SequenceLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class Positions:
    """Position ids for the language model, which may repeat, and where decoding goes on."""

    ids: Real[Tensor, "batch seq"]
    next_id: Real[Tensor, " batch"]
