"""One grid for all encoders: which it is, and how maps of other grids are brought to it."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from polyvex.fusion.base import FusionOptions
from polyvex.tokens import Grid, TokenShape

Method = Literal["bilinear", "area", "nearest", "bicubic"]
INTERPOLATION = ("bilinear", "bicubic")
Places = Annotated[int, Field(ge=1)]
RowsAndColumns = Annotated[list[Places], Field(min_length=2, max_length=2)]


class GridOptions(FusionOptions):
    """Options of fusions that bring all encoders to one grid."""

    grid: Places | RowsAndColumns | None = Field(
        default=None,
        description="The grid that all encoders are brought to: [rows, columns], or one number for both. Left out, "
        "encoders must have one grid already.",
    )
    resample: Method = Field(
        default="bilinear",
        description="How a map is brought to another grid: interpolation, the mean of each area, or the nearest place. "
        "Has no effect where grids agree.",
    )
    align_corners: bool = Field(
        default=False,
        description="Interpolate so that the centers of the corner places of both grids coincide (Eagle's code); false "
        "takes places for squares that fill the map. For bilinear and bicubic.",
    )

    @model_validator(mode="after")
    def _corners_of_interpolation(self) -> Self:
        if self.align_corners and self.resample not in INTERPOLATION:
            raise ValueError(
                f"align_corners = true has no effect with resample = '{self.resample}', which does not interpolate. "
                "Use bilinear or bicubic, or remove it"
            )
        return self


def common_grid(options: GridOptions, inputs: Sequence[TokenShape]) -> Grid:
    """The grid that ``options`` name, or that all encoders have.

    Raises:
        ValueError: if an encoder has no grid, or grids differ and none is named. Says which, and a way out.
    """
    for index, shape in enumerate(inputs):
        if shape.grid is None:
            raise ValueError(
                f"encoder #{index + 1} gives {shape.tokens} tokens without a grid, so they cannot be brought to one. "
                f"Take a fusion that needs none, such as mlp or qformer, or leave out a reducer that drops the grid"
            )
    if isinstance(options.grid, int):
        return Grid(rows=options.grid, cols=options.grid)
    if options.grid is not None:
        return Grid(rows=options.grid[0], cols=options.grid[1])
    grids = grids_of(inputs)
    if len(set(grids)) > 1:
        raise ValueError(
            f"the encoders have grids of {', '.join(map(str, grids))}, and this fusion needs one. Name it: "
            f"grid = [{grids[0].rows}, {grids[0].cols}], say, or change an encoder's image_size or its reducer"
        )
    return grids[0]


def grids_of(inputs: Sequence[TokenShape]) -> list[Grid]:
    """The grid of each encoder; all must have one, as :func:`common_grid` makes sure."""
    return [shape.grid for shape in inputs if shape.grid is not None]


def resample(
    values: Float[Tensor, "images tokens width"],
    source: Grid,
    target: Grid,
    method: Method,
    *,
    align_corners: bool = False,
) -> Float[Tensor, "images other width"]:
    """Bring row-major tokens from one grid to another; they come out unchanged if both are the same.

    Places are squares that fill the map, unless ``align_corners`` has interpolation begin and end at the centers of the
    corner places. Interpolation does not smooth before it leaves places out: to make a map much smaller, ``area`` looks
    at all of it.
    """
    if source == target:
        return values
    maps = rearrange(values, "images (rows cols) width -> images width rows cols", rows=source.rows)
    size = (target.rows, target.cols)
    if method in INTERPOLATION:
        maps = F.interpolate(maps, size=size, mode=method, align_corners=align_corners)
    else:
        maps = F.interpolate(maps, size=size, mode="nearest-exact" if method == "nearest" else "area")
    return rearrange(maps, "images width rows cols -> images (rows cols) width")
