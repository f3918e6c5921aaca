"""The values that travel from images to logits. All are frozen: each step returns a new one.

Axis names: ``images`` counts images of a batch, ``tokens`` visual tokens of one image, ``batch`` and ``seq`` are
the language model's axes, ``dim`` is a width.
"""

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

    ``source`` is the index of its encoder in the order of the recipe, ``coords`` its row and column there (-1
    without a grid). Every image of a model has the same layout.
    """

    source: Int[Tensor, " tokens"]
    coords: Int[Tensor, "tokens 2"]

    @classmethod
    def of(cls, shapes: list[TokenShape]) -> "VisualLayout":
        """Lay the runs of several encoders side by side, in order."""
        source = [torch.full((shape.tokens,), index) for index, shape in enumerate(shapes)]
        return cls(source=torch.cat(source), coords=torch.cat([shape.coords() for shape in shapes]))

    @property
    def tokens(self) -> int:
        """Visual tokens per image."""
        return self.source.shape[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualTokens:
    """Tokens of some images: from one encoder, or from all of them after fusion (then ``layout`` tells sources)."""

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
class SequenceLayout:
    """What sits at each place of the language model's input.

    ``image`` counts the images of a row from 0, ``source`` and ``coords`` are as in :class:`VisualLayout`; all are
    -1 on text. ``valid`` is false on padding. Made once, at the splice; position schemes, masks and routing
    statistics read it.
    """

    image: Int[Tensor, "batch seq"]
    source: Int[Tensor, "batch seq"]
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
