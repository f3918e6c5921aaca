"""Linear layers with GELU between them, from an encoder's width to the language model's (LLaVA-1.5's mlpNx_gelu)."""

from itertools import pairwise

from pydantic import Field
from torch import nn

from polyvex.fusion.base import FusionOptions


class ProjectionOptions(FusionOptions):
    """Options of fusions that project by an MLP."""

    depth: int = Field(
        default=2, ge=1, le=8, description="Linear layers to the language model's width; 2 is LLaVA-1.5's."
    )
    hidden: int | None = Field(
        default=None, ge=1, description="Width between linear layers; the language model's if left out."
    )


def check_hidden(options: ProjectionOptions) -> None:
    """Make sure that ``hidden`` has an effect if it is given.

    Raises:
        ValueError: if there is one layer, and so nothing between layers.
    """
    if options.hidden is not None and options.depth == 1:
        raise ValueError(
            f"hidden = {options.hidden} has no effect with depth = 1. Raise depth to 2 or more, or take hidden out"
        )


def projection(options: ProjectionOptions, width: int, dim: int) -> nn.Sequential:
    """The layers, from ``width`` to ``dim``."""
    inner = options.hidden or dim
    widths = [width, *[inner] * (options.depth - 1), dim]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.GELU(), nn.Linear(before, after)]
    return nn.Sequential(*layers[1:])
