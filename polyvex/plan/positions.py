"""Which position each visual token of an image gets, panel by panel: what a person looks at to understand a scheme."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from polyvex.hooks.manager import Registries
from polyvex.layouts import ImageLayouts
from polyvex.plan.tokens import image_positions, used_up
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe
from polyvex.tokens import TEXT, VisualLayout

LINE = 32
"""Tokens without a grid are drawn in lines of so many."""

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One view of one encoder: the position of the token at each place, NaN where there is none.

    The tokens that end rows are the last column (``ends``). Tokens without a grid come in lines (``grid`` false).
    """

    title: str
    places: Float[np.ndarray, "rows cols"]
    grid: bool
    ends: bool


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one encoder takes of an image's tokens and positions; ``first`` and ``last`` position within the image."""

    name: str
    tokens: int
    positions: int
    first: float
    last: float


@dataclass(frozen=True, kw_only=True)
class PositionMap:
    """Positions of one image's tokens, counted from the image's first.

    ``size`` is its height and width where tokens depend on them. ``takes`` is how far text behind it is moved on;
    ``separators`` are the positions of the tokens between runs.
    """

    recipe: str
    scheme: str
    size: Size | None
    tokens: int
    takes: int
    shares: list[Share]
    separators: list[float]
    panels: list[Panel]


def position_map(recipe: Recipe, registries: Registries, *, size: Size | None = None) -> PositionMap:
    """Give an image its positions as the recipe says, and sort them by encoder and view.

    Args:
        size: the image's height and width; needed only where tokens depend on it, and then the costliest that there
            is if not given.
    """
    layouts, size, (ids, takes) = image_positions(recipe, registries, size=size)
    layout = layouts.of(size)
    names = _names(recipe, layouts)
    shares, panels = [], []
    for source, name in names.items():
        own = layout.source == source
        shares.append(_share(name, ids[own]))
        for view in layout.view[own].unique().tolist():
            here = own & (layout.view == view)
            several = len(layout.view[own].unique()) > 1
            title = f"{name}, {'whole image' if view == 0 else 'tiles'}" if several else name
            panels.append(_panel(title, layout.pick(here), ids[here]))
    return PositionMap(
        recipe=recipe.name,
        scheme=_schemes(recipe),
        size=size,
        tokens=layout.tokens,
        takes=takes,
        shares=shares,
        separators=[float(one) for one in ids[layout.run == TEXT]],
        panels=panels,
    )


def _schemes(recipe: Recipe) -> str:
    """The common scheme, and those that encoders have of their own; random ones as they answer."""
    own = zip(encoder_names(recipe), recipe.encoders, strict=True)
    tables = [("", recipe.positions), *((f"{name}: ", one.positions) for name, one in own if one.positions is not None)]
    common = len(tables) <= len(recipe.encoders)
    return ", ".join(f"{who}{_scheme(table)}" for who, table in (tables if common else tables[1:]))


def _scheme(table: Any) -> str:
    return f"{table.use} (its step for answers)" if table.use == "random_stride" else table.use


def _names(recipe: Recipe, layouts: ImageLayouts) -> dict[int, str]:
    """What each source of tokens is called: an encoder, or several that the fusion merges."""
    names = encoder_names(recipe)
    if len(layouts.runs) == len(names) and all(run.source == index for index, run in enumerate(layouts.runs)):
        return dict(enumerate(names))
    return {run.source: f"{recipe.fusion.use} of {', '.join(names)}" for run in layouts.runs}


def _share(name: str, ids: Tensor) -> Share:
    return Share(name=name, tokens=len(ids), positions=used_up(ids), first=float(ids.min()), last=float(ids.max()))


def _panel(title: str, layout: VisualLayout, ids: Tensor) -> Panel:
    rows, cols = (layout.coords[:, axis].numpy() for axis in (0, 1))
    values = ids.double().numpy()
    if (rows == TEXT).all():
        lines = -(-len(values) // LINE)
        places = np.full((lines, min(LINE, len(values))), np.nan)
        places.reshape(-1)[: len(values)] = values
        return Panel(title=title, places=places, grid=False, ends=False)
    ends = bool((cols == TEXT).any())
    places = np.full((rows.max() + 1, cols.max() + 1 + ends), np.nan)
    places[rows, np.where(cols == TEXT, cols.max() + 1, cols)] = values
    return Panel(title=title, places=places, grid=True, ends=ends)


def describe(found: PositionMap) -> str:
    """The budget as text: one line per encoder, then all together."""
    size = f" of {found.size[1]}x{found.size[0]} pixels" if found.size else ""
    lines = [f"positions of {found.recipe}: {found.scheme}; an image{size}, counted from its first position", ""]
    wide = max(len(share.name) for share in found.shares)
    for share in found.shares:
        lines.append(
            f"  {share.name.ljust(wide)}  {share.tokens:5} tokens  {share.positions:5} positions  "
            f"{number(share.first)} to {number(share.last)}"
        )
    if found.separators:
        lines.append(f"  separators at {', '.join(map(number, found.separators))}")
    lines += ["", f"  together {found.tokens} tokens; text behind the image goes on {found.takes} positions further"]
    return "\n".join(lines)


def number(value: float) -> str:
    """A position in as few signs as say it, to three places."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def spread(panels: Sequence[Panel]) -> tuple[float, float]:
    """The least and the greatest position of all panels."""
    every = np.concatenate([panel.places[~np.isnan(panel.places)] for panel in panels])
    return float(every.min()), float(every.max())
