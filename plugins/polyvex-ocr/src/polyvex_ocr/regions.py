"""Where text is on a picture: the features of PP-OCRv4's detector, as a grid of tokens."""

from typing import ClassVar

from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    normalize,
    resize_square,
)
from polyvex.options import LocalPath
from polyvex.tokens import Grid, TokenShape, VisualTokens
from polyvex_ocr.files import DETECTOR_NECK
from polyvex_ocr.graph import OnnxGraph
from polyvex_ocr.weights import load_graph

DIM, STRIDE, MULTIPLE = 96, 4, 32
"""Channels, pixels for each place of the detector's map, and what its sides must be multiples of."""

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of both networks' pixels."""

LICENSE = License(name="Apache-2.0", commercial=True)


class OcrRegionsOptions(EncoderOptions):
    """Options of ``ocr-regions``."""

    image_size: int = Field(
        default=448,
        ge=MULTIPLE,
        multiple_of=MULTIPLE,
        description="Side of the square image in pixels, a multiple of 32.",
    )
    pool: int = Field(
        default=8,
        ge=1,
        description="So many rows and columns of the detector's map, which has one place per 4 x 4 pixels, are "
        "averaged to one token. Must divide image_size / 4.",
    )
    weights: LocalPath = Field(
        default="", description="Folder with the detector's ONNX file; empty for the rapidocr-onnxruntime wheel."
    )

    @property
    def side(self) -> int:
        """Rows, and columns, of the grid.

        Raises:
            ValueError: if ``pool`` does not divide the map.
        """
        side, rest = divmod(self.image_size // STRIDE, self.pool)
        if rest or not side:
            raise ValueError(
                f"pool is {self.pool}; expected a divisor of {self.image_size // STRIDE}, the side of the detector's "
                f"map for image_size {self.image_size}"
            )
        return side


class OcrRegions(VisionEncoder[OcrRegionsOptions]):
    """PP-OCRv4's text detector, read before its head: the four joined levels of its neck, 96 wide, averaged to a grid.

    The network is the ONNX file of the rapidocr-onnxruntime wheel, run by onnxruntime on the CPU in float32 whatever
    the model's device and type are. So it is frozen by nature: it has no parameter that PyTorch could train.
    """

    Options: ClassVar[type[EncoderOptions]] = OcrRegionsOptions
    summary: ClassVar[str] = "PP-OCRv4's text detector: where text is, 96 wide, on a grid; cannot be trained"

    def __init__(self, options: OcrRegionsOptions):
        super().__init__(options)
        self.grid = Grid(rows=options.side, cols=options.side)
        self.detector = OnnxGraph(DETECTOR_NECK)

    @classmethod
    def describe(cls, options: OcrRegionsOptions) -> EncoderFacts:
        """Tell tokens, grid and width. There are no parameters: the weights are inside the graph.

        Raises:
            ValueError: if ``pool`` does not divide the detector's map.
        """
        grid = Grid(rows=options.side, cols=options.side)
        return EncoderFacts(
            shape=TokenShape(tokens=grid.tokens, dim=DIM, grid=grid),
            image_size=(options.image_size, options.image_size),
            parameters=0,
            license=LICENSE,
            source="PP-OCRv4's mobile text detector (PaddleOCR, trained for Chinese and English), as ONNX in "
            "rapidocr-onnxruntime 1.4.4",
        )

    @classmethod
    def weights(cls, options: OcrRegionsOptions) -> WeightsPlace:
        """Look for the detector's file in the folder ``options.weights``, else in the wheel."""
        return DETECTOR_NECK.place(options.weights)

    def load_pretrained(self) -> WeightsReport:
        """Take over the graph's bytes.

        Raises:
            WeightsError: if the file is missing, damaged or another one.
        """
        return load_graph(self.detector, DETECTOR_NECK.find(self.options.weights))

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to a square, bicubic, and scale to -1 to 1, as rapidocr does for this detector."""
        return normalize(resize_square(image, self.options.image_size), mean=HALF, std=HALF)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to tokens, row by row."""
        (features,) = self.detector(pixels.flip(1))  # PP-OCR takes blue first
        pooled = F.avg_pool2d(features, self.options.pool)
        return VisualTokens.on_grid(rearrange(pooled, "images dim rows cols -> images (rows cols) dim"), self.grid)
