"""What the author of a recipe has to say of an ONNX file, because the file does not."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polyvex.encoders import EncoderOptions
from polyvex.options import LocalPath

Count = Annotated[int, Field(ge=1)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class OnnxOptions(EncoderOptions):
    """Options of ``onnx``."""

    file: LocalPath = Field(min_length=1, description="Path of the ONNX file, with its weights inside.")
    output: str = Field(
        min_length=1, description="Name of the tensor whose values are the tokens: an output, or one inside the graph."
    )
    input: str = Field(
        default="",
        description="Name of the tensor that takes the pixels: an input, or one inside the graph behind its own "
        "preparation of the image. Empty for the only input.",
    )
    image_size: Count | Pair | None = Field(
        default=None,
        description="Side of the square image in pixels, or [height, width]; the graph's own if left out.",
    )
    layout: Literal["tokens", "map", "map_last"] = Field(
        default="tokens",
        description="Axes of the output: tokens is [images tokens dim], map is [images dim rows cols], map_last is "
        "[images rows cols dim].",
    )
    skip: int = Field(
        default=0, ge=0, description="How many tokens in front (class, registers) have no place in the image."
    )
    grid: Pair | Literal["none"] | None = Field(
        default=None,
        description="[rows, cols] of the tokens, row by row; none if they have no places. Left out: a map's own, or "
        "as many rows as columns.",
    )
    scale: float = Field(
        default=1.0, gt=0, description="Value of white before mean and std are applied: 1, or 255 for some graphs."
    )
    mean: PerChannel = Field(
        default=[0.485, 0.456, 0.406], description="Mean that is subtracted from red, green, blue; ImageNet's."
    )
    std: Deviations = Field(
        default=[0.229, 0.224, 0.225], description="Deviation that red, green, blue are divided by; ImageNet's."
    )
    channels: Literal["rgb", "bgr"] = Field(default="rgb", description="Order in which the graph takes the colours.")
    license: str = Field(
        default="",
        description="Licence of the weights, an SPDX name. Left out, it is unknown, and counts as not for commerce.",
    )

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        if self.scale != 1 and not {"mean", "std"} <= self.model_fields_set:
            raise ValueError(
                f"scale is {self.scale:g}, but the default mean and std are for values from 0 to 1; "
                "give both, on the scale's own range"
            )
        if self.layout != "tokens" and (self.skip or self.grid is not None):
            raise ValueError(f"layout = '{self.layout}' has its own grid; leave out skip and grid")
        return self
