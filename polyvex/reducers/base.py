"""What a reducer is: one encoder's tokens in, fewer of them out, before fusion."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.options import Options
from polyvex.tokens import Grid, TokenShape


class ReducerOptions(Options):
    """Options that every reducer may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=ReducerOptions, default=Any)
"""The class of a component's own options: ``class Mine(Reducer[MyOptions])``."""


class Reducer(nn.Module, ABC, Generic[OptionsT]):
    """Base of all reducers. Subclasses are final.

    A reducer works on the tokens of single tiles, between an encoder and the fusion, and trains with the connector. The
    cache keeps what comes before it, so another reducer needs no encoder to run again. ``Options`` is the class of its
    options, ``summary`` one line for listings.
    """

    Options: ClassVar[type[ReducerOptions]] = ReducerOptions
    summary: ClassVar[str]

    def __init__(self, options: OptionsT, *, shape: TokenShape):
        """``shape`` is what the encoder emits; ``self.shape`` is what comes out."""
        super().__init__()
        self.options = options
        self.given = shape
        self.shape = self.describe(options, shape=shape)

    @classmethod
    @abstractmethod
    def describe(cls, options: OptionsT, *, shape: TokenShape) -> TokenShape:
        """Tell what comes out, without building anything.

        Raises:
            ValueError: if tokens of this shape cannot be reduced with these options. Says the numbers and a way out.
        """

    @abstractmethod
    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images fewer out"]:
        """Reduce the tokens of each image; see :meth:`describe` for what comes out."""


def windows(shape: TokenShape, size: int) -> Grid:
    """The grid of the windows of ``size`` × ``size`` places that a grid is cut into.

    Raises:
        ValueError: if there is no grid, or windows do not fill it. Says which sizes do.
    """
    grid = shape.grid
    if grid is None:
        raise ValueError(f"its {shape.tokens} tokens have no grid, so there are no windows. Use perceiver or keep")
    if grid.rows % size or grid.cols % size:
        fits = [one for one in range(1, min(grid.rows, grid.cols) + 1) if grid.rows % one == grid.cols % one == 0]
        raise ValueError(
            f"windows of {size}x{size} do not fill its grid of {grid}. Use a size of {', '.join(map(str, fits))}"
        )
    return Grid(rows=grid.rows // size, cols=grid.cols // size)
