"""LayoutLMv3: a transformer that looks at the patches of a page, and at the words on it if it is given them."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from jaxtyping import Float, Int
from PIL import Image as PILImage
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import (
    EncoderFacts,
    EncoderInputs,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    files_beside,
    load_strictly,
    normalize,
    read_weights,
)
from polyvex.encoders.images import to_rgb
from polyvex.errors import WeightsError
from polyvex.options import LocalPath
from polyvex.tokens import Grid, TokenShape, VisualTokens
from polyvex_layoutlmv3.network import computed_buffers, count_flops, count_parameters, make_network, read_layers
from polyvex_layoutlmv3.structure import BASE, LARGE, PATCH, TRAINED_SIZE, Structure
from polyvex_layoutlmv3.text import check_reader, find_tokenizer, load_tokenizer, read_text
from polyvex_layoutlmv3.weights import (
    POSITIONS,
    find_beside,
    find_weights,
    resample_positions,
    unused_keys,
    without_prefix,
)

if TYPE_CHECKING:
    from transformers import LayoutLMv3Tokenizer

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of the pixels in training."""


class LayoutLMv3Options(EncoderOptions):
    """Options of ``layoutlmv3-base`` and ``layoutlmv3-large``."""

    words: Literal["none", "ocr"] = Field(
        default="none",
        description="none looks at pixels alone; ocr also at the words on the image and their boxes, as polyvex-ocr "
        "reads them.",
    )
    max_tokens: int = Field(
        default=512,
        ge=3,
        description='Places for text with words = "ocr", start and end included. A warning tells of text left out.',
    )
    detector_side: int = Field(
        default=736,
        ge=32,
        multiple_of=32,
        description='With words = "ocr", a smaller image is enlarged until its shorter side has so many pixels, before '
        "lines of text are looked for. Less is quicker and misses small text.",
    )
    image_size: int = Field(
        default=TRAINED_SIZE,
        ge=PATCH,
        multiple_of=PATCH,
        description="Side of the square image in pixels, a multiple of 16. Positions are resampled to other sizes "
        "than 224.",
    )
    layers: int | Annotated[list[int], Field(min_length=1)] = Field(
        default=-1,
        description="Layer whose output is read: 0 is the first, -1 the last, -2 the one before. Several are joined "
        "along the width. Later ones are not built.",
    )
    weights: LocalPath = Field(
        default="", description="Folder of a checkpoint, or its weight file; empty for the hub's local cache."
    )

    @property
    def reads_text(self) -> bool:
        """Whether the network looks at words."""
        return self.words != "none"

    @property
    def grid(self) -> Grid:
        """The patches."""
        return Grid(rows=self.image_size // PATCH, cols=self.image_size // PATCH)


class LayoutLMv3(VisionEncoder[LayoutLMv3Options]):
    """LayoutLMv3 (arXiv:2204.08387), read after one or several of its layers; one token per 16 × 16 pixels.

    The network is transformers' ``LayoutLMv3Model``. It sees a page in small, at 224 pixels; what is written there
    comes with ``words = "ocr"``, read at the image's own size, and takes part in attention. The patches' tokens are
    what is given out, row by row; the class token and those of the text are left out.

    As in transformers, the tables of relative positions get no gradient.
    """

    Options: ClassVar[type[EncoderOptions]] = LayoutLMv3Options
    structure: ClassVar[Structure]
    repository: ClassVar[str]

    def __init__(self, options: LayoutLMv3Options):
        super().__init__(options)
        self.layers = self.chosen_layers(options)
        if options.reads_text:
            check_reader()
        self.network = make_network(
            self.structure, image_size=options.image_size, depth=max(self.layers) + 1, text=options.reads_text
        )

    @classmethod
    def chosen_layers(cls, options: LayoutLMv3Options) -> list[int]:
        """The layers that are read, counted from 0.

        Raises:
            ValueError: if there is no such layer.
        """
        chosen = [options.layers] if isinstance(options.layers, int) else options.layers
        depth = cls.structure.layers
        if wrong := [layer for layer in chosen if not -depth <= layer < depth]:
            raise ValueError(
                f"layers has {', '.join(map(str, wrong))}; expected {-depth} to {depth - 1}, for there are {depth}"
            )
        return [layer % depth for layer in chosen]

    @classmethod
    def describe(cls, options: LayoutLMv3Options) -> EncoderFacts:
        """Tell tokens, grid, width and cost.

        Raises:
            ValueError: if there is no such layer, or the network has fewer places for text than ``max_tokens``.
        """
        layers, grid = cls.chosen_layers(options), options.grid
        if options.reads_text and options.max_tokens > cls.structure.most_tokens:
            raise ValueError(f"max_tokens is {options.max_tokens}; expected at most {cls.structure.most_tokens}")
        depth, places = max(layers) + 1, options.max_tokens if options.reads_text else 0
        return EncoderFacts(
            shape=TokenShape(tokens=grid.tokens, dim=cls.structure.dim * len(layers), grid=grid),
            image_size=(options.image_size, options.image_size),
            parameters=count_parameters(cls.structure, grid=grid, depth=depth, text=options.reads_text),
            flops=count_flops(cls.structure, grid=grid, depth=depth, words=places),
            license=License(name="CC-BY-NC-SA-4.0", commercial=False),
            source=f"{cls.repository}: masked text and images, and their alignment, on the 11 million scanned pages of "
            "IIT-CDIP, arXiv:2204.08387",
        )

    @classmethod
    def weights(cls, options: LayoutLMv3Options) -> WeightsPlace:
        """Look for the weights at ``options.weights``, else in the hub's local cache."""
        install = (
            f"put a checkpoint of {cls.repository} at {options.weights}, or give the option weights another path"
            if options.weights
            else f"hf download {cls.repository}, or give the option weights the path of such a folder"
        )
        path = find_weights(options.weights, cls.repository)
        vocabulary = files_beside(path, ("vocab.json", "merges.txt")) if options.words == "ocr" else ()
        return WeightsPlace(path=path, install=install, beside=vocabulary)

    def load_pretrained(self) -> WeightsReport:
        """Load the weights. Layers that are not built, heads, and text embeddings without text stay unused.

        A ``config.json`` beside the weights must tell of the same architecture. Positions of another image size than
        the file's are resampled, and reported as reshaped.

        Raises:
            WeightsError: if the weights, or with words the tokenizer's files, are missing, damaged, or of another
                architecture.
        """
        options = self.options
        place = self.weights(options)
        if place.path is None:
            raise WeightsError(f"{self.repository}: no weights on this machine. To get them: {place.install}")
        if config := find_beside(options.weights, self.repository, "config.json"):
            self.structure.check(config)
        if options.reads_text:
            self._tokenizer()
        read = without_prefix(read_weights(place.path))
        state = resample_positions(read, options.grid.rows)
        computed = computed_buffers(self.network)
        ignore = unused_keys(state, depth=max(self.layers) + 1, text=options.reads_text)
        report = load_strictly(self.network, {**state, **computed}, path=place.path, ignore=ignore)
        reshaped = [POSITIONS] if state[POSITIONS].shape != read[POSITIONS].shape else []
        return dataclasses.replace(
            report,
            loaded=[key for key in report.loaded if key not in reshaped],
            unused=sorted({*report.unused, *(set(read) & set(computed))}),
            reshaped=reshaped,
        )

    def _tokenizer(self) -> "LayoutLMv3Tokenizer":
        files = find_tokenizer(self.options.weights, self.repository)
        return load_tokenizer(*files, self.structure)

    def transform(self, image: Image) -> EncoderInputs:
        """Resize to a square, bilinear, and scale to -1 to 1; with ``words = "ocr"`` also read the words.

        Returns:
            ``pixels`` Float32[3 height width]; and with words, at the image's own size, ``words`` Int64[max_tokens],
            ``boxes`` Int64[max_tokens 4], and ``mask`` Int64[max_tokens].

        Raises:
            WeightsError: if the tokenizer's files or those of polyvex-ocr are missing.
        """
        upright, side = to_rgb(image), self.options.image_size
        pixels = normalize(upright.resize((side, side), PILImage.Resampling.BILINEAR), mean=HALF, std=HALF)
        if not self.options.reads_text:
            return {"pixels": pixels}
        text = read_text(
            upright, self._tokenizer(), places=self.options.max_tokens, detector_side=self.options.detector_side
        )
        return {"pixels": pixels, **text}

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        words: Int[Tensor, "images max_tokens"] | None = None,
        boxes: Int[Tensor, "images max_tokens 4"] | None = None,
        mask: Int[Tensor, "images max_tokens"] | None = None,
    ) -> VisualTokens:
        """Encode a page to the tokens of its patches, row by row; several layers are joined along the width."""
        return VisualTokens.on_grid(
            read_layers(self.network, self.layers, pixels, words, boxes, mask), self.options.grid
        )


class LayoutLMv3Base(LayoutLMv3):
    """``microsoft/layoutlmv3-base``: 12 layers, 768 wide."""

    summary: ClassVar[str] = "LayoutLMv3 base: documents, 768 wide, pixels alone or with words read from them"
    structure: ClassVar[Structure] = BASE
    repository: ClassVar[str] = "microsoft/layoutlmv3-base"


class LayoutLMv3Large(LayoutLMv3):
    """``microsoft/layoutlmv3-large``: 24 layers, 1024 wide."""

    summary: ClassVar[str] = "LayoutLMv3 large: documents, 1024 wide, pixels alone or with words read from them"
    structure: ClassVar[Structure] = LARGE
    repository: ClassVar[str] = "microsoft/layoutlmv3-large"
