"""Segment Anything's image encoders."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import (
    Box,
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    load_strictly,
)
from polyvex.encoders.images import to_rgb
from polyvex.errors import WeightsError
from polyvex.options import LocalPath
from polyvex.tokens import Grid, TokenShape, VisualTokens
from polyvex_sam.checkpoint import read_checkpoint
from polyvex_sam.network import make_network, read_tokens
from polyvex_sam.square import box_in_square, into_square
from polyvex_sam.structure import PATCH, VIT_B, VIT_H, VIT_L, Structure, Variant

URL = "https://dl.fbaipublicfiles.com/segment_anything/"


class SamOptions(EncoderOptions):
    """Options of ``sam-vit-b``, ``sam-vit-l`` and ``sam-vit-h``."""

    image_size: int = Field(
        default=1024,
        ge=PATCH,
        description="Side of the square in pixels, a multiple of 16; the image's long side fills it.",
    )
    features: Literal["neck", "blocks"] = Field(
        default="neck",
        description="neck reads 256 channels behind the neck; blocks reads what the blocks give, and builds no neck.",
    )
    layers: int | Annotated[list[int], Field(min_length=1)] = Field(
        default=-1,
        description="Block whose output is read: 0 is the first, -1 the last, -2 the one before. Several are joined "
        'along the width, in this order. Later ones are not built. Only with features = "blocks".',
    )
    padding: Literal["drop", "keep"] = Field(
        default="drop",
        description="drop leaves out the tokens of the padding beside the image; keep takes them for a part of it.",
    )
    weights: LocalPath = Field(default="", description="Path of the checkpoint, such as sam_vit_b_01ec64.pth.")


class SamEncoder(VisionEncoder[SamOptions]):
    """The image encoder of Segment Anything (arXiv:2304.02643), one token per 16 × 16 pixels of a padded square.

    The network is segment-anything's ``ImageEncoderViT``, built for one image size. Positions were trained on 64 × 64
    patches. For another grid, loading resamples them once: the absolute ones bicubic without antialias, the relative
    ones of blocks that attend to the whole grid linearly. Prompt encoder and mask decoder are not built.
    """

    Options: ClassVar[type[EncoderOptions]] = SamOptions
    variant: ClassVar[Variant]

    def __init__(self, options: SamOptions):
        super().__init__(options)
        self.structure = _structure(self.variant, options)
        self.network = make_network(self.structure)

    @classmethod
    def describe(cls, options: SamOptions) -> EncoderFacts:
        """Tell tokens, grid, width and cost.

        Raises:
            ValueError: if ``image_size`` is not a multiple of 16, or there is no such layer to read.
        """
        structure = _structure(cls.variant, options)
        return EncoderFacts(
            shape=TokenShape(tokens=structure.grid.tokens, dim=structure.dim, grid=structure.grid),
            image_size=(options.image_size, options.image_size),
            parameters=structure.parameters(),
            flops=structure.flops(),
            license=License(name="Apache-2.0", commercial=True),
            source=f"{cls.variant.file} of Segment Anything: trained to segment on SA-1B, arXiv:2304.02643",
        )

    @classmethod
    def content(cls, options: SamOptions, size: tuple[int, int]) -> Box:
        """Where the square shows an image of ``size`` (height, width): at its upper left, at least one pixel of it.

        With ``padding = "keep"`` it is the whole square.
        """
        if options.padding == "keep":
            return super().content(options, size)
        return box_in_square(size, options.image_size)

    @classmethod
    def weights(cls, options: SamOptions) -> WeightsPlace:
        """Look for the checkpoint at ``options.weights``; there is no other place."""
        link = URL + cls.variant.file
        if not options.weights:
            return WeightsPlace(path=None, install=f"fetch {link}, and give its path by the option weights")
        path = Path(options.weights)
        return WeightsPlace(path=path if path.is_file() else None, install=f"put the checkpoint at {path}, from {link}")

    def load_pretrained(self) -> WeightsReport:
        """Load the image encoder out of a whole SAM. Prompt encoder, mask decoder and what is not built stay unused.

        Positions that were resampled for another grid than the checkpoint's are reported as reshaped.

        Raises:
            WeightsError: if the file is missing, damaged, or of another architecture.
        """
        place = self.weights(self.options)
        if place.path is None:
            raise WeightsError(f"{self.variant.name}: no weights on this machine. To get them: {place.install}")
        read = read_checkpoint(place.path, self.structure)
        report = load_strictly(self.network, read.state, path=place.path, ignore=read.skipped)
        loaded = [key for key in report.loaded if key not in read.reshaped]
        return dataclasses.replace(report, loaded=loaded, reshaped=read.reshaped)

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize so that the long side fills the square, normalise, and pad at the right and at the bottom."""
        return into_square(to_rgb(image), self.options.image_size)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to tokens, row by row; several layers are joined along the width."""
        values = read_tokens(self.network, pixels, self.structure.layers)
        return VisualTokens.on_grid(values, self.structure.grid)


class SamVitB(SamEncoder):
    """SAM ViT-B: 12 blocks, 768 wide."""

    variant = VIT_B
    summary: ClassVar[str] = "Segment Anything's ViT-B, long side 1024 pixels: 64 x 64 tokens, 256 or 768 wide"


class SamVitL(SamEncoder):
    """SAM ViT-L: 24 blocks, 1024 wide."""

    variant = VIT_L
    summary: ClassVar[str] = "Segment Anything's ViT-L, long side 1024 pixels: 64 x 64 tokens, 256 or 1024 wide"


class SamVitH(SamEncoder):
    """SAM ViT-H: 32 blocks, 1280 wide."""

    variant = VIT_H
    summary: ClassVar[str] = "Segment Anything's ViT-H, long side 1024 pixels: 64 x 64 tokens, 256 or 1280 wide"


def _structure(variant: Variant, options: SamOptions) -> Structure:
    side, rest = divmod(options.image_size, PATCH)
    if rest:
        raise ValueError(
            f"image_size is {options.image_size}; expected a multiple of {PATCH}, "
            f"such as {side * PATCH} or {(side + 1) * PATCH}"
        )
    neck = options.features == "neck"
    layers = _layers(variant, options.layers)
    if neck and layers != (variant.depth - 1,):
        raise ValueError(
            f"layers is {options.layers}, but the neck was trained behind the last block alone; "
            'leave layers out, or set features = "blocks"'
        )
    return Structure(variant=variant, grid=Grid(rows=side, cols=side), layers=layers, neck=neck)


def _layers(variant: Variant, given: int | list[int]) -> tuple[int, ...]:
    """The layers counted from 0, in the order given."""
    wanted = [given] if isinstance(given, int) else given
    depth = variant.depth
    if wrong := [layer for layer in wanted if not -depth <= layer < depth]:
        raise ValueError(
            f"layers names {', '.join(map(str, wrong))}, but {variant.name} has {depth} blocks: 0 to {depth - 1}, "
            f"or -1 to -{depth} from the end"
        )
    layers = tuple(layer % depth for layer in wanted)
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers is {given}, which reads a block twice; name each block once")
    return layers
