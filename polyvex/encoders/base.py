"""What a visual encoder is: a network, its own image transform, and the facts that a recipe needs beforehand."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic

from PIL.Image import Image
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.encoders.weights import WeightsReport
from polyvex.options import Options
from polyvex.tokens import TokenShape, VisualTokens

EncoderInputs = Tensor | dict[str, Tensor]
"""What a transform gives: pixels [3 height width]; or tensors by name, ``pixels`` among them, each of a fixed shape."""


class EncoderOptions(Options):
    """Options that every encoder may extend. It has none of its own."""


@dataclass(frozen=True, kw_only=True)
class License:
    """Licence of an encoder's weights: an SPDX name, or the words of its authors, and whether it allows commerce."""

    name: str
    commercial: bool

    def __str__(self) -> str:
        return self.name if self.commercial else f"{self.name} (NOT for commercial use)"


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """What is known of an encoder with given options before it is built.

    ``image_size`` is (height, width) in pixels after the transform, ``parameters`` counts the network's weights,
    ``flops`` one image's forward (multiply and add count as two; None when unknown), ``source`` says who trained
    it on what. ``crops`` tells that the transform cuts the image's border off: such an encoder cannot be given tiles.
    """

    shape: TokenShape
    image_size: tuple[int, int]
    parameters: int
    license: License
    source: str
    flops: int | None = None
    crops: bool = False


@dataclass(frozen=True, kw_only=True)
class Box:
    """A part of a picture in pixels: its upper left corner, and its extent."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class WeightsPlace:
    """Where an encoder's weights are on this machine (``path`` is None if they are not), and how to get them.

    ``beside`` has further files that its tokens depend on, such as an image processor's numbers or a vocabulary: cached
    tokens are kept apart by the content of all of them.
    """

    path: Path | None
    install: str
    needed: bool = True
    beside: tuple[Path, ...] = ()
    details: dict[str, str] = field(default_factory=dict)


OptionsT = TypeVar("OptionsT", bound=EncoderOptions, default=Any)
"""The class of a component's own options: ``class Mine(VisionEncoder[MyOptions])``."""


class VisionEncoder(nn.Module, ABC, Generic[OptionsT]):
    """Base of all encoders. Subclasses are final: wrap one to change it.

    ``Options`` is the class of its options, ``summary`` one line for listings. The constructor takes only the
    options and builds the structure with fresh weights, without reading a file, so that a model can be planned
    or loaded from a checkpoint; :meth:`load_pretrained` then brings the real weights. All state must be parameters
    or persistent buffers, so that a checkpoint holds it.
    """

    Options: ClassVar[type[EncoderOptions]] = EncoderOptions
    summary: ClassVar[str]

    def __init__(self, options: OptionsT):
        super().__init__()
        self.options = options

    @classmethod
    @abstractmethod
    def describe(cls, options: OptionsT) -> EncoderFacts:
        """Tell tokens, grid, width and cost without building anything.

        Raises:
            ValueError: if the options cannot go together, such as an image size that patches do not divide.
        """

    @classmethod
    @abstractmethod
    def weights(cls, options: OptionsT) -> WeightsPlace:
        """Look for the pretrained weights on this machine, without reading them."""

    @abstractmethod
    def load_pretrained(self) -> WeightsReport:
        """Load the pretrained weights and account for every key.

        Raises:
            WeightsError: if they are missing, damaged, or of another architecture.
        """

    @classmethod
    def content(cls, options: OptionsT, size: tuple[int, int]) -> Box:
        """Where the pixels of :meth:`transform` show the image; the rest is padding, whose tokens are left out.

        Args:
            size: height and width of an image. The answer may depend on nothing else.
        """
        height, width = cls.describe(options).image_size
        return Box(top=0, left=0, height=height, width=width)

    @abstractmethod
    def transform(self, image: Image) -> EncoderInputs:
        """Turn an image of any mode and size into this encoder's pixels, with its own size, mean and deviation.

        Most encoders return the pixels alone, [3 height width]. One that looks at more, such as words and their
        boxes, returns tensors by name, with the pixels as ``pixels``; :meth:`forward` gets all of them by these names.
        """

    @abstractmethod
    def forward(self, *inputs: Any, **named: Any) -> VisualTokens:
        """Encode ``pixels`` [images 3 height width], and by name whatever else :meth:`transform` returned.

        Tokens are row-major on the grid of :meth:`describe`; class tokens are left out. Encoders write their own
        arguments: ``def forward(self, pixels: Tensor)``, or ``def forward(self, pixels: Tensor, words: Tensor)``.
        """
