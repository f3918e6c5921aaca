"""What a position scheme is: the tokens of one run to positions, counted from the start of the run."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Real
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.options import Options
from polyvex.tokens import VisualLayout

Base = Literal["sequential", "common"]
"""Where a run starts: at the next free position, or at the first of its image, as the other encoders' runs do."""


class PositionOptions(Options):
    """Options that every position scheme has, and may extend."""

    base: Base = Field(
        default="sequential",
        description="sequential: a run starts at the next free position. common: all start at the image's first.",
    )


OptionsT = TypeVar("OptionsT", bound=PositionOptions, default=Any)
"""The class of a component's own options: ``class Mine(PositionScheme[MyOptions])``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunPositions:
    """Positions of the tokens of one run, counted from its start, and how many positions it takes up.

    ``offsets`` may repeat, decrease, or have a fraction. They are above -1, the position of a token right before the
    run: a fraction below 0 places a token between the two. ``extent`` is greater than all of them.
    """

    offsets: Real[Tensor, " tokens"]
    extent: float


class Within(Protocol):
    """:meth:`PositionScheme.within`, for the runs of one image."""

    def __call__(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Positions of one run's tokens."""
        ...


class PositionScheme(nn.Module, ABC, Generic[OptionsT]):
    """Base of all position schemes. Subclasses are final.

    A scheme answers for one run of one image; :class:`PositionAssigner` places runs, images and text one behind the
    other. ``needs_grid`` tells that it says nothing about tokens without a grid, so that a recipe whose runs have none
    is refused.
    """

    Options: ClassVar[type[PositionOptions]] = PositionOptions
    summary: ClassVar[str]
    needs_grid: ClassVar[bool] = False

    def __init__(self, options: OptionsT, *, layout: VisualLayout, dim: int):
        """``layout`` has every run, view and column that an image can have; ``dim`` is the language model's width."""
        super().__init__()
        self.options = options

    @property
    def varies(self) -> bool:
        """Whether :meth:`within` may answer differently the next time, as in training with random steps."""
        return False

    @abstractmethod
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Give the tokens of one run their positions, counted from the run's start.

        Args:
            run: the layout of the run's tokens, in the order in which the language model reads them.
            image: the layout of all tokens that the scheme gives positions to one after the other, for schemes that
                share something out: of all its runs in the image, or with ``base = "common"`` of this one.
        """

    def of_image(self) -> Within:
        """:meth:`within` for the runs of one image; what is random for each image is drawn here, once."""
        return self.within

    def embed(
        self, values: Float[Tensor, "*images tokens dim"], layout: VisualLayout
    ) -> Float[Tensor, "*images tokens dim"]:
        """Add what the scheme keeps in the embeddings themselves; nothing unless a scheme says otherwise.

        Args:
            values: of images that are all laid out as ``layout``; or of all images one behind the other, with
                ``layout`` as long.
        """
        return values


def changes(*values: Real[Tensor, "*batch tokens"]) -> Bool[Tensor, "*batch tokens"]:
    """Where any of some values differs from its left neighbour; true at the start."""
    different = torch.stack([one[..., 1:] != one[..., :-1] for one in values]).any(dim=0)
    return torch.cat([torch.ones_like(values[0][..., :1], dtype=torch.bool), different], dim=-1)


def counted(opens: Bool[Tensor, " tokens"]) -> RunPositions:
    """Positions that go on by one wherever ``opens`` is true; the first token opens the first."""
    offsets = opens.long().cumsum(dim=0) - 1
    return RunPositions(offsets=offsets, extent=int(offsets[-1]) + 1)
