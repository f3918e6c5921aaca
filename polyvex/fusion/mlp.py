"""MouSi's projection fusion: one first layer per encoder, one second layer for all (arXiv 2401.17221, §3.2).

The paper's body was not to be had; the form here is that of the one public re-implementation, which agrees with
what others say of the paper. With one encoder and one patch per token it is exactly LLaVA-1.5's ``mlp2x_gelu``.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar

from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.fusion.base import Fusion
from polyvex.fusion.projection import ProjectionOptions, check_hidden
from polyvex.options import IsPerEncoder
from polyvex.tokens import Grid, TokenShape

Patches = Annotated[int, Field(ge=1)]


class MLPFusionOptions(ProjectionOptions):
    """Options of the ``mlp`` fusion."""

    patches_per_token: Annotated[Patches | list[Patches], IsPerEncoder()] = Field(
        default=1,
        description="How many neighbours along a row become one token; one number for all encoders or one for each.",
    )
    shared: bool = Field(
        default=True, description="Share the second layer among the encoders, as MouSi does; false gives each its own."
    )


class MLPFusion(Fusion[MLPFusionOptions]):
    """Per encoder: join ``m`` patches, map to the inner width; then GELU and linear layers for all.

    The inner width is the language model's, as in MouSi and LLaVA-1.5, unless ``hidden`` says another. Runs stay whole
    and come in the order of the encoders.
    """

    Options = MLPFusionOptions
    separate = True
    summary = "first linear layer per encoder, further layers shared; m neighbouring patches per token (MouSi)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden", "tokens": "patches_per_token"})

    def __init__(self, options: MLPFusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.patches = _patches(options, len(inputs))
        widths = [m * shape.dim for m, shape in zip(self.patches, inputs, strict=True)]
        inner = dim if options.depth == 1 else options.hidden or dim
        self.first = nn.ModuleList(nn.Linear(width, inner) for width in widths)
        stacks = 1 if options.shared else len(inputs)
        self.rest = nn.ModuleList(_rest(inner, dim, options.depth) for _ in range(stacks))

    @classmethod
    def describe(cls, options: MLPFusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """Each run is ``m`` times shorter; its grid keeps its rows and has ``m`` times fewer columns."""
        check_hidden(options)
        if options.depth == 1 and not options.shared:
            raise ValueError(
                "shared = false has no effect with depth = 1, which has no second layer. Raise depth, or take it out"
            )
        return [
            _join(shape, m, index, dim)
            for index, (shape, m) in enumerate(zip(inputs, _patches(options, len(inputs)), strict=True))
        ]

    def fuse_one(self, index: int, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images out dim"]:
        """Fuse one encoder's tokens; see the class."""
        joined = rearrange(values, "images (tokens m) width -> images tokens (m width)", m=self.patches[index])
        return self.rest[0 if self.options.shared else index](self.first[index](joined))


def _rest(inner: int, dim: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for after in [*[inner] * (depth - 2), dim][: depth - 1]:
        layers += [nn.GELU(), nn.Linear(inner, after)]
    return nn.Sequential(*layers)


def _patches(options: MLPFusionOptions, encoders: int) -> list[int]:
    given = options.patches_per_token
    patches = [given] * encoders if isinstance(given, int) else given
    if len(patches) != encoders:
        raise ValueError(
            f"patches_per_token has {len(patches)} numbers for {encoders} encoders. Give one number, or one per encoder"
        )
    return patches


def _join(shape: TokenShape, m: int, index: int, dim: int) -> TokenShape:
    """The run of one encoder after ``m`` neighbours became one token."""
    width = shape.grid.cols if shape.grid else shape.tokens
    if width % m:
        fits = [number for number in range(1, width + 1) if width % number == 0]
        what = "columns" if shape.grid else "tokens"
        raise ValueError(
            f"patches_per_token is {m} for encoder #{index + 1}, whose {width} {what} it does not divide. "
            f"Use one of {', '.join(map(str, fits))}"
        )
    grid = Grid(rows=shape.grid.rows, cols=width // m) if shape.grid else None
    return TokenShape(tokens=shape.tokens // m, dim=dim, grid=grid)
