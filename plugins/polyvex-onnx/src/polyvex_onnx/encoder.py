"""Any ONNX file as an encoder."""

from pathlib import Path
from typing import ClassVar

from einops import rearrange
from jaxtyping import Float
from PIL import Image as PILImage
from PIL.Image import Image
from torch import Tensor

from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    allows_commerce,
    normalize,
    sha256_of,
)
from polyvex.encoders.images import to_rgb
from polyvex.errors import ContractError, WeightsError
from polyvex.tokens import VisualTokens
from polyvex_onnx.facts import GraphFacts, cut_graph, graph_facts
from polyvex_onnx.options import OnnxOptions
from polyvex_onnx.session import HeldGraph
from polyvex_onnx.shapes import LAYOUTS, token_shape


class OnnxEncoder(VisionEncoder[OnnxOptions]):
    """An ONNX graph, read at one of its tensors and run by onnxruntime on the CPU.

    A graph is no torch network: it has no parameters, so it cannot be trained, and no gradient passes through it. Its
    state is one buffer, the bytes of the file cut to what leads to the output, so a checkpoint holds the graph itself.

    How many bytes, how many tokens and how wide, only the file tells. Therefore the constructor and :meth:`describe`
    read its structure, which other encoders do not, and the file must be there whenever the encoder is planned or
    built, also from a checkpoint. The bytes themselves come by :meth:`load_pretrained` or a state dict.
    """

    Options: ClassVar[type[EncoderOptions]] = OnnxOptions
    summary: ClassVar[str] = "any ONNX file, read at one of its tensors; cannot be trained"

    def __init__(self, options: OnnxOptions):
        super().__init__(options)
        facts = _read(options)
        self.size = facts.size
        self.shape = token_shape(options, facts)
        self.graph = HeldGraph(facts.length, one_by_one=facts.one_by_one)

    @classmethod
    def describe(cls, options: OnnxOptions) -> EncoderFacts:
        """Tell tokens, grid and width from the file. It has no torch parameters; ``source`` counts its numbers.

        Raises:
            ValueError: if the file is missing or no ONNX file, or an option does not fit its graph.
        """
        facts = _read(options)
        return EncoderFacts(
            shape=token_shape(options, facts),
            image_size=facts.size,
            parameters=0,
            license=License(
                name=options.license or "unknown (the file names none)", commercial=allows_commerce(options.license)
            ),
            source=f"'{options.output}' of {Path(options.file).name}, written by {facts.made_by}, with "
            f"{facts.numbers:,} numbers in its constants; who trained it on what, the file does not say",
        )

    @classmethod
    def weights(cls, options: OnnxOptions) -> WeightsPlace:
        """Look for the file."""
        path = Path(options.file)
        return WeightsPlace(path=path if path.is_file() else None, install=f"put the ONNX file at {path}")

    def load_pretrained(self) -> WeightsReport:
        """Take over the graph. Constants that do not lead to the output stay unused.

        Raises:
            WeightsError: if the file is missing or damaged, or was changed since the encoder was built.
        """
        options, path = self.options, Path(self.options.file)
        try:
            part = cut_graph(path, output=options.output, start=options.input, size=self.size)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}") from None
        if len(part.content) != len(self.graph.content):
            raise WeightsError(
                f"{path}: its graph has {len(part.content)} bytes, expected the {len(self.graph.content)} that this "
                "encoder was built for. The file was changed; build the encoder again"
            )
        self.graph.set_content(part.content)
        return WeightsReport(
            source=str(path), sha256=sha256_of(path), loaded=["graph.content", *part.kept], unused=part.left
        )

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to the graph's size, bicubic with antialias, nothing is cut; then scale, subtract mean, divide by std.

        Where the graph takes blue first, so do the pixels; mean and std are always of red, green, blue.
        """
        small = to_rgb(image).resize((self.size[1], self.size[0]), PILImage.Resampling.BICUBIC)
        options = self.options
        # (scale * value - mean) / std, written for values from 0 to 1
        mean, std = ([number / options.scale for number in three] for three in (options.mean, options.std))
        pixels = normalize(small, mean=tuple(mean), std=tuple(std))  # type: ignore[arg-type]
        return pixels.flip(0) if options.channels == "bgr" else pixels

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to tokens in their type, row by row. No gradient passes.

        Raises:
            ContractError: if the graph gives another shape than it promised.
            WeightsError: if no graph was loaded.
        """
        values = self.graph(pixels)
        axes = LAYOUTS[self.options.layout]
        if values.ndim != len(axes.partition("->")[0].split()):
            raise ContractError(f"'{self.options.output}' gave {tuple(values.shape)}, expected the axes {axes}")
        tokens = rearrange(values, axes)[:, self.options.skip :]
        wanted = (len(pixels), self.shape.tokens, self.shape.dim)
        if tokens.shape != wanted:
            raise ContractError(
                f"'{self.options.output}' gave {tuple(tokens.shape)} for {len(pixels)} images, expected {wanted} "
                "(images, tokens, width). Was the graph exported for one image, with an input for any number?"
            )
        return VisualTokens.on_grid(tokens, self.shape.grid)


def _read(options: OnnxOptions) -> GraphFacts:
    """The file's facts; what is wrong with the file is also wrong with the options that name it."""
    size = options.image_size
    asked = None if size is None else (size, size) if isinstance(size, int) else (size[0], size[1])
    try:
        return graph_facts(Path(options.file), output=options.output, start=options.input, size=asked)
    except WeightsError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        raise ValueError(f"{Path(options.file).name}: {error}") from None
