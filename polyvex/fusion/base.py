"""What a fusion is: the tokens of all encoders in, one sequence of the language model's width out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.encoders.base import WeightsPlace
from polyvex.encoders.weights import WeightsReport
from polyvex.options import Options
from polyvex.tokens import TokenShape, VisualLayout, VisualTokens


class FusionOptions(Options):
    """Options that every fusion may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=FusionOptions, default=Any)
"""The class of a component's own options: ``class Mine(Fusion[MyOptions])``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """How much each encoder counts for each image; one whose weight is zero need not run for that image."""

    weights: Float[Tensor, "images encoders"]


class Fusion(nn.Module, ABC, Generic[OptionsT]):
    """Base of all fusions. Subclasses are final.

    ``Options`` is the class of its options, ``summary`` one line for listings. ``separate`` tells that each encoder's
    tokens come out as a run of their own that depends on no other encoder; then encoders may see an image in
    different pieces, and :meth:`fuse_one` does the work. ``interleaves`` tells that the tokens of one place then come
    side by side, not run after run. ``routes`` tells that a question can choose encoders, by :meth:`choose`.
    ``sizes`` names the whole-number option that makes more ``parameters``, and the one that changes the ``tokens``
    that come out, if there are such: they are how a fusion is brought to a wanted size. Each must go one way only.

    The builder passes what a recipe never writes: the shapes that the encoders emit (in recipe order) and the language
    model's width.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions
    summary: ClassVar[str]
    separate: ClassVar[bool] = False
    interleaves: ClassVar[bool] = False
    routes: ClassVar[bool] = False
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({})

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

    @classmethod
    def count_parameters(cls, options: OptionsT, *, inputs: Sequence[TokenShape], dim: int) -> int:
        """How many numbers it would train, counted on a copy without memory.

        Raises:
            ValueError: as :meth:`describe`.
        """
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            built = cls(options, inputs=inputs, dim=dim)
        return sum(parameter.numel() for parameter in built.parameters())

    @classmethod
    def weights(cls, options: OptionsT) -> WeightsPlace | None:
        """Where the weights that the options name are on this machine; None where they name none."""
        return None

    def load_pretrained(self) -> WeightsReport | None:
        """Load the weights that the options name, and account for every key; None where they name none.

        Called once, when a model is made for training; a checkpoint brings its own weights.

        Raises:
            WeightsError: if they are missing, damaged, or of another architecture.
        """
        return None

    def choose(self, question: Float[Tensor, "images dim"]) -> Choice:
        """Choose encoders for each image by its question's mean embedding. Only for a fusion that ``routes``."""
        raise NotImplementedError(f"{type(self).__name__} does not choose encoders")

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Fuse the tokens of the encoders, in recipe order; ``values`` come out as [images tokens dim].

        A fusion that is ``separate`` has it from here; any other must write it.
        """
        if not self.separate:
            raise NotImplementedError(f"{type(self).__name__} merges encoders, so it needs a forward of its own")
        return VisualTokens(values=torch.cat(self.runs(parts), dim=1), layout=self.layout)

    def fuse_one(self, index: int, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images out dim"]:
        """The run of encoder number ``index``, from its tokens alone. Only for a fusion that is ``separate``."""
        raise NotImplementedError(f"{type(self).__name__} is not separate, so no encoder can be fused by itself")

    def runs(self, parts: Sequence[VisualTokens]) -> list[Float[Tensor, "images out dim"]]:
        """Each run that comes out, in order. With ``separate``, encoders may have different numbers of images."""
        if self.separate:
            return [self.fuse_one(index, part.values) for index, part in enumerate(parts)]
        return list(self(parts).values.split([shape.tokens for shape in self.shapes], dim=1))
