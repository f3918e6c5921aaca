"""Position schemes: which position ids visual tokens get, and so how many positions an image uses up."""

from collections.abc import Mapping

from polyvex.hooks import hookimpl
from polyvex.positions.assign import PositionAssigner
from polyvex.positions.base import PositionOptions, PositionScheme, RunPositions
from polyvex.positions.schemes import Sequential, ShareAll, ShareEncoder, ShareRow, ShareRowCol
from polyvex.positions.steps import Interpolate, RandomStride, Stride

__all__ = ["PositionAssigner", "PositionOptions", "PositionScheme", "RunPositions", "register_position_schemes"]


@hookimpl
def register_position_schemes() -> Mapping[str, type[PositionScheme]]:
    """MouSi's four schemes and one for all encoders together; V2PE's steps; a budget."""
    return {
        "sequential": Sequential,
        "share_all": ShareAll,
        "share_row": ShareRow,
        "share_row_col": ShareRowCol,
        "share_encoder": ShareEncoder,
        "stride": Stride,
        "random_stride": RandomStride,
        "interpolate": Interpolate,
    }
