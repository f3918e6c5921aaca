"""What a fusion is: the tokens of all encoders in, one sequence of the language model's width out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic

from torch import nn
from typing_extensions import TypeVar

from polyvex.options import Options
from polyvex.tokens import TokenShape, VisualLayout, VisualTokens


class FusionOptions(Options):
    """Options that every fusion may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=FusionOptions, default=Any)
"""The class of a component's own options: ``class Mine(Fusion[MyOptions])``."""


class Fusion(nn.Module, ABC, Generic[OptionsT]):
    """Base of all fusions. Subclasses are final.

    ``Options`` is the class of its options, ``summary`` one line for listings. The builder passes what a recipe
    never writes: the shapes that the encoders emit (in recipe order) and the language model's width.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions
    summary: ClassVar[str]

    def __init__(self, options: OptionsT, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__()
        self.options = options
        self.dim = dim
        self.shapes = self.describe(options, inputs=inputs, dim=dim)
        self.layout = VisualLayout.of(self.shapes)

    @classmethod
    @abstractmethod
    def describe(cls, options: OptionsT, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """Tell the runs of tokens that come out, in order, without building anything.

        Raises:
            ValueError: if these encoders cannot be fused with these options. Says the numbers and a way out.
        """

    @abstractmethod
    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Fuse the tokens of the encoders, in recipe order; ``values`` come out as [images tokens dim]."""
