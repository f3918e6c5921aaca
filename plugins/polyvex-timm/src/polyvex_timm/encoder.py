"""Any timm model as an encoder."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image as PILImage
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
    allows_commerce,
    find_on_hub,
    load_strictly,
    normalize,
)
from polyvex.encoders.images import to_rgb
from polyvex.errors import WeightsError
from polyvex.options import LocalPath
from polyvex.tokens import TokenShape, VisualTokens
from polyvex_timm.cropping import cuts_border, timms_own_transform
from polyvex_timm.network import (
    Size,
    Structure,
    make_network,
    read_layers,
    structure_of,
    weights_config,
    whole_network,
)
from polyvex_timm.table import known_origin, known_structure
from polyvex_timm.weights import Origin, origin_of, read_state

Side = Annotated[int, Field(ge=1)]


class TimmOptions(EncoderOptions):
    """Options of ``timm``."""

    checkpoint: str = Field(
        description="timm's name of the model with the tag of its weights, such as vit_base_patch16_siglip_256.webli."
    )
    image_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="Side of the square image in pixels, or [height, width]; the weights' own if left out.",
    )
    layers: int | Annotated[list[int], Field(min_length=1)] = Field(
        default=-1,
        description="Block or stage whose output is read: 0 is the first, -1 the last, -2 the one before. Several are "
        "joined along the width. Later ones are not built.",
    )
    norm: bool = Field(default=True, description="Apply the network's final norm, where it has one.")
    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description="squash keeps all of the image; crop scales and cuts the middle, as timm tests it.",
    )
    weights: LocalPath = Field(default="", description="Path of the weights; empty for the hub's local cache.")

    @property
    def chosen(self) -> tuple[int, ...]:
        """The layers as a tuple."""
        return (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)

    def size(self) -> Size:
        """Height and width."""
        if self.image_size is None:
            return self.origin().size
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else tuple(self.image_size)  # type: ignore[return-value]

    def origin(self) -> Origin:
        """Where the weights are from: by the table where it has them, else by timm."""
        return known_origin(self.checkpoint) or origin_of(self.checkpoint)

    def structure(self) -> Structure:
        """What the network gives for these options: from the table where it has them, else from the network."""
        asked = (self.checkpoint, self.size(), self.chosen, self.norm)
        return known_structure(*asked) or structure_of(*asked)


class TimmEncoder(VisionEncoder[TimmOptions]):
    """A timm network, read after one or several of its blocks or stages; one token per place of its grid.

    Mean, deviation and interpolation are those that the weights were trained with. Position embeddings are resampled
    once, when weights are loaded, by timm's own rule for the family. Class and register tokens take part in attention
    and are then left out.
    """

    Options: ClassVar[type[EncoderOptions]] = TimmOptions
    summary: ClassVar[str] = "any model of timm, read after one or several of its blocks or stages"

    def __init__(self, options: TimmOptions):
        super().__init__(options)
        self.size = options.size()
        network, self.layers = make_network(options.checkpoint, self.size, options.chosen, norm=options.norm)
        self.network: Any = network
        self.structure = options.structure()

    @classmethod
    def describe(cls, options: TimmOptions) -> EncoderFacts:
        """Tell tokens, grid, width and cost, from the network on ``meta``.

        Raises:
            ValueError: if timm has no such model, or the size or a layer does not fit it.
        """
        structure, origin = options.structure(), options.origin()
        return EncoderFacts(
            shape=TokenShape(tokens=structure.grid.tokens, dim=sum(structure.dims), grid=structure.grid),
            image_size=structure.size,
            parameters=structure.parameters,
            flops=structure.flops,
            license=License(
                name=origin.license or "unknown (timm names none)", commercial=allows_commerce(origin.license)
            ),
            source=origin.source,
            crops=options.resize == "crop" and cuts_border(weights_config(options.checkpoint)),
        )

    @classmethod
    def weights(cls, options: TimmOptions) -> WeightsPlace:
        """Look for the file at ``options.weights``, else in the hub's local cache."""
        origin = options.origin()
        if not options.weights:
            path = find_on_hub(origin.hub, origin.files) if origin.hub else None
            return WeightsPlace(path=path, install=origin.how_to_get(options.checkpoint))
        path = Path(options.weights)
        return WeightsPlace(path=path if path.is_file() else None, install=f"put the weights at {path}")

    def load_pretrained(self) -> WeightsReport:
        """Load the weights. The classifier, and layers that are not built, stay unused.

        Raises:
            WeightsError: if they are missing, damaged, or of another architecture.
        """
        place = self.weights(self.options)
        if place.path is None:
            raise WeightsError(f"{self.options.checkpoint}: no weights on this machine. To get them: {place.install}")
        with torch.device("meta"):
            whole = whole_network(self.options.checkpoint, self.size)
        state, reshaped = read_state(place.path, whole)
        wanted = self.network.state_dict()
        ignore = [key for key in state if key not in wanted and self._is_behind(key)]
        computed = {key: wanted[key] for key in self._computed() if key not in state}
        report = load_strictly(self.network, {**computed, **state}, path=place.path, ignore=ignore)
        reshaped = [key for key in reshaped if key in wanted]
        loaded = [key for key in report.loaded if key not in computed and key not in reshaped]
        return dataclasses.replace(report, loaded=loaded, reshaped=reshaped)

    def _computed(self) -> list[str]:
        """Buffers that timm makes from the network's structure, so that no file has to hold them."""
        learned = ("running_mean", "running_var", "num_batches_tracked")
        return [key for key, _ in self.network.named_buffers() if not key.endswith(learned)]

    def _is_behind(self, key: str) -> bool:
        """Whether a key belongs to what was cut off: classifier, pooling head, final norm, or later layers."""
        classifier = weights_config(self.options.checkpoint).classifier or "head"
        names = (classifier,) if isinstance(classifier, str) else classifier
        behind = (*names, "head", "fc_norm", "attn_pool", "norm", "conv_head", "bn2", "classifier", "head_dist")
        if key.startswith(tuple(f"{name}." for name in behind)):
            return True
        top, _, rest = key.partition(".")
        number = rest.partition(".")[0]
        kept = getattr(self.network, top, None)
        return (
            number.isdecimal()
            and isinstance(kept, torch.nn.Sequential | torch.nn.ModuleList)
            and int(number) >= len(kept)
        )

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize with the weights' own interpolation, and normalise with their mean and deviation."""
        config = weights_config(self.options.checkpoint)
        if self.options.resize == "crop":
            return timms_own_transform(config, self.size)(to_rgb(image))
        method = getattr(PILImage.Resampling, config.interpolation.upper(), PILImage.Resampling.BICUBIC)
        square = to_rgb(image).resize((self.size[1], self.size[0]), method)
        return normalize(square, mean=tuple(config.mean), std=tuple(config.std))  # type: ignore[arg-type]

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode pixels to tokens, row by row; several layers are joined along the width."""
        outputs = read_layers(self.network, pixels, self.layers, norm=self.options.norm)
        joined = torch.cat(outputs, dim=1)
        return VisualTokens.on_grid(
            rearrange(joined, "images dim rows cols -> images (rows cols) dim"), self.structure.grid
        )
