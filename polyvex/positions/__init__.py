"""Position schemes: which position ids visual tokens get, and so how many positions an image uses up."""

from collections.abc import Mapping

from polyvex.hooks import hookimpl
from polyvex.positions.base import PositionOptions, PositionScheme
from polyvex.positions.schemes import Sequential, ShareAll, ShareRow, ShareRowCol

__all__ = ["PositionOptions", "PositionScheme", "register_position_schemes"]


@hookimpl
def register_position_schemes() -> Mapping[str, type[PositionScheme]]:
    """MouSi's four schemes."""
    return {"sequential": Sequential, "share_all": ShareAll, "share_row": ShareRow, "share_row_col": ShareRowCol}
