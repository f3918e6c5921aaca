"""Any vision tower of transformers as an encoder."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import EncoderFacts, EncoderOptions, VisionEncoder, WeightsPlace, WeightsReport, files_beside
from polyvex.errors import WeightsError
from polyvex.options import LocalPath, absolute
from polyvex.tokens import TokenShape, VisualTokens
from polyvex_hf.checkpoint import CONFIG, differences, find_checkpoint, folder_of, license_of, weights_of
from polyvex_hf.network import make_parts, network_class
from polyvex_hf.pictures import Pictures, find_pictures
from polyvex_hf.reading import read_tokens
from polyvex_hf.settings import FILES
from polyvex_hf.structure import Size, Structure, structure_of
from polyvex_hf.table import Asked, known_structure
from polyvex_hf.weights import load_into

Side = Annotated[int, Field(ge=1)]
ImageSize = Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None


class HfOptions(EncoderOptions):
    """Options of ``hf``."""

    checkpoint: str = Field(
        description="Directory with a config.json, or a name on the hub whose files are in the hub's local cache, such "
        "as openai/clip-vit-large-patch14-336."
    )
    image_size: ImageSize = Field(
        default=None,
        description="Side of the square image in pixels, or [height, width]; that of config.json if left out.",
    )
    layers: int | Annotated[list[int], Field(min_length=1)] = Field(
        default=-2,
        description="Block or stage whose output is read: 0 is the first, -1 the last, -2 the one before, as LLaVA "
        "reads CLIP. Several are joined along the width. Later ones are not built.",
    )
    norm: bool = Field(default=False, description="Apply the network's final norm to what is read; LLaVA does not.")
    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description="squash keeps all of the image; crop is the checkpoint's own image processor, which may cut.",
    )
    weights: LocalPath = Field(
        default="", description="Path of the weights; empty for those of the directory, or in the hub's local cache."
    )

    @property
    def chosen(self) -> tuple[int, ...]:
        """The layers as a tuple."""
        return (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)

    def size(self) -> Size:
        """Height and width.

        Raises:
            ValueError: if neither the options nor the checkpoint state them, or there is no such checkpoint.
        """
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        if self.image_size is not None:
            return self.image_size[0], self.image_size[1]
        checkpoint = find_checkpoint(self.checkpoint)
        stated = checkpoint.stated_size()
        if stated is None:
            network_class(checkpoint)  # what does not see at all is told before a size is asked for
            raise ValueError(f"the config.json of '{self.checkpoint}' states no image_size; give the option image_size")
        return stated

    def structure(self) -> Structure:
        """What the network gives for these options: from the table where it has them, else from the network."""
        asked = self.asked()
        return known_structure(*asked) or structure_of(*asked)

    def asked(self) -> Asked:
        """What the structure follows from."""
        return find_checkpoint(self.checkpoint), self.size(), self.chosen, self.norm

    def located(self) -> Self:
        """A directory is made absolute; a name on the hub stays."""
        options = super().located()
        if not Path(self.checkpoint).is_dir():
            return options
        return options.model_copy(update={"checkpoint": absolute(self.checkpoint)})


class HfEncoder(VisionEncoder[HfOptions]):
    """A vision tower of transformers, read after one or several of its blocks or stages.

    Without the norm, tokens are transformers' own ``hidden_states[layer + 1]``. Class, distillation and register
    tokens take part in attention and are then left out; their number is that of the network's own parameters. For
    another image size than the checkpoint's, the network's own rule interpolates positions in each forward.
    """

    Options: ClassVar[type[EncoderOptions]] = HfOptions
    summary: ClassVar[str] = "any vision tower of transformers, read after one or several of its blocks or stages"

    def __init__(self, options: HfOptions):
        super().__init__(options)
        self.structure = options.structure()
        parts = make_parts(find_checkpoint(options.checkpoint), options.chosen, norm=options.norm)
        self.network: Any = parts.network
        self.norm = parts.norm
        self.size = options.size()
        self._pictures: Pictures | None = None

    @classmethod
    def describe(cls, options: HfOptions) -> EncoderFacts:
        """Tell tokens, grid, width and cost, from the network on ``meta``.

        Raises:
            ValueError: if the checkpoint's facts are not here, its tokens cannot be told apart, or the size, a layer,
                the norm or the crop does not fit it.
        """
        checkpoint, structure, size = find_checkpoint(options.checkpoint), options.structure(), options.size()
        pictures = find_pictures(checkpoint.folder, checkpoint.model_type)
        if options.resize == "crop":
            pictures.check_crop(size)
        return EncoderFacts(
            shape=TokenShape(tokens=structure.grid.tokens, dim=sum(structure.dims), grid=structure.grid),
            image_size=size,
            parameters=structure.parameters,
            flops=structure.flops,
            license=license_of(checkpoint),
            source=checkpoint.known.source if checkpoint.known else f"{checkpoint.name} ({checkpoint.model_type})",
            crops=options.resize == "crop",
        )

    @classmethod
    def weights(cls, options: HfOptions) -> WeightsPlace:
        """Look for the file at ``options.weights``, else in the directory or the hub's local cache.

        Tokens also depend on the checkpoint's configuration and image processor, wherever the weights are.
        """
        place, folder = weights_of(options.checkpoint, options.weights), folder_of(options.checkpoint)
        return dataclasses.replace(place, beside=files_beside(folder and folder / CONFIG, (CONFIG, *FILES[::-1])))

    def load_pretrained(self) -> WeightsReport:
        """Load the weights. Other towers, heads, pooling and later layers stay unused.

        Raises:
            WeightsError: if they are missing, damaged, of another architecture, or if the ``config.json`` beside them
                contradicts the facts that the structure was built from.
        """
        place = self.weights(self.options)
        if place.path is None:
            raise WeightsError(f"{self.options.checkpoint}: no weights on this machine. To get them: {place.install}")
        checkpoint = find_checkpoint(self.options.checkpoint)
        if checkpoint.known and (found := differences(checkpoint.known, place.path.parent)):
            raise WeightsError(
                f"{place.path.parent / 'config.json'} is not of {checkpoint.name} as it is known here: "
                f"{'; '.join(found)}. To take it as it is, give its directory as checkpoint"
            )
        return load_into(self, checkpoint, place.path)

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize with the checkpoint's own interpolation, and normalise with its mean and deviation."""
        if self._pictures is None:
            checkpoint = find_checkpoint(self.options.checkpoint)
            self._pictures = find_pictures(checkpoint.folder, checkpoint.model_type)
        if self.options.resize == "crop":
            return self._pictures.crop(image, self.size)
        return self._pictures.squash(image, self.size)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to tokens, row by row; several layers are joined along the width."""
        structure = self.structure
        values = read_tokens(self.network, self.norm, pixels, layers=structure.layers, front=structure.front)
        return VisualTokens.on_grid(values, structure.grid)
