"""What a position scheme is: the layout of a sequence to position ids."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.options import Options
from polyvex.tokens import TEXT, Positions, SequenceLayout, VisualLayout


class PositionOptions(Options):
    """Options that every position scheme may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=PositionOptions, default=Any)
"""The class of a component's own options: ``class Mine(PositionScheme[MyOptions])``."""


class PositionScheme(nn.Module, ABC, Generic[OptionsT]):
    """Base of all position schemes. Subclasses are final.

    A scheme of this family answers one question in :meth:`opens`: does this visual token open a new position, or
    share that of its left neighbour? Text always opens one. Ids are then a running count, so text after an image
    goes on right behind it, and padding on either side changes nothing.
    """

    Options: ClassVar[type[PositionOptions]] = PositionOptions
    summary: ClassVar[str]

    def __init__(self, options: OptionsT, *, layout: VisualLayout, dim: int):
        """``layout`` has every view and column that an image can have; ``dim`` is the language model's width."""
        super().__init__()
        self.options = options

    @abstractmethod
    def opens(self, layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
        """Where a new position opens. Only the answers on visual tokens count."""

    def assign(self, layout: SequenceLayout) -> Positions:
        """Give each place its position id (0 on padding), and tell where decoding goes on."""
        opens = (self.opens(layout) | (layout.image == TEXT)) & layout.valid
        count = opens.long().cumsum(dim=1)
        ids = (count - 1).clamp(min=0).masked_fill(~layout.valid, 0)
        return Positions(ids=ids, next_id=count[:, -1])

    def embed(
        self, values: Float[Tensor, "*images tokens dim"], layout: VisualLayout
    ) -> Float[Tensor, "*images tokens dim"]:
        """Add what the scheme keeps in the embeddings themselves; nothing unless a scheme says otherwise.

        Args:
            values: of images that are all laid out as ``layout``; or of all images one behind the other, with
                ``layout`` as long.
        """
        return values


def changes(values: torch.Tensor) -> Bool[Tensor, "batch seq"]:
    """Where a value along the sequence differs from its left neighbour; true at the start."""
    first = torch.ones_like(values[:, :1], dtype=torch.bool)
    return torch.cat([first, values[:, 1:] != values[:, :-1]], dim=1)
