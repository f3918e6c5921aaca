"""Tokens and positions of each encoder, from a recipe alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Real
from torch import Tensor

from polyvex.encoders.base import VisionEncoder
from polyvex.encoders.tiling import Size
from polyvex.encoders.views import EncoderViews
from polyvex.hooks.manager import Registries
from polyvex.layouts import ImageLayouts
from polyvex.positions.assign import Placed
from polyvex.positions.build import build_assigner
from polyvex.recipe.check import recipe_layouts
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe
from polyvex.tokens import Grid, VisualLayout

SLACK = 1e-4
"""What float32 may lack of a whole position after many steps."""


@dataclass(frozen=True, kw_only=True)
class EncoderBudget:
    """What one encoder brings per image: tokens before and after fusion, positions used up, weights and licence.

    ``tokens_out`` and ``positions`` are None where the fusion merges encoders, so that no token is one encoder's own.
    """

    name: str
    use: str
    image: str
    grid: str
    dim: int
    tokens_in: int
    tokens_out: int | None
    positions: int | None
    parameters: int
    flops: int | None
    license: str
    commercial: bool
    weights: str


@dataclass(frozen=True, kw_only=True)
class VisualBudget:
    """What one image takes: of each encoder in order, and in all (tokens after fusion, positions till the next text).

    Where that depends on the image, ``size`` is the height and width that the figures are of; it is None otherwise.
    """

    encoders: list[EncoderBudget]
    tokens: int
    positions: int
    size: Size | None = None


def budgets(recipe: Recipe, registries: Registries, *, dim: int, sizes: Sequence[Size] = ()) -> VisualBudget:
    """The budget of one image, from the recipe's tables alone; ``dim`` is the language model's width.

    Args:
        sizes: height and width of the images that may come, where tokens depend on them: the costliest counts. Without
            any, the costliest of the shapes that fill a grid of tiles.
    """
    layouts, size, (ids, takes) = image_positions(recipe, registries, dim=dim, sizes=sizes)
    layout = layouts.of(size)
    rows = []
    for index, (table, name) in enumerate(zip(recipe.encoders, encoder_names(recipe), strict=True)):
        run = next((run for run in layouts.runs if run.source == index), None) if _separate(layouts, recipe) else None
        own = layout.source == index
        rows.append(
            replace(
                _encoder_budget(registries.encoders[table.use], table, name, size or (1, 1)),
                tokens_out=int(own.sum()) if run else None,
                positions=used_up(ids[own]) if run else None,
            )
        )
        if run is not None and run.tile.grid is not None:
            rows[-1] = replace(rows[-1], grid=_grids(layout, index))
    return VisualBudget(encoders=rows, tokens=layout.tokens, positions=takes, size=size)


def used_up(ids: Real[Tensor, " tokens"]) -> int:
    """Whole positions that some tokens use: the number of unit intervals that cover them, closed at either end.

    Tokens of ``stride`` are in (p, p + 1], those of ``interpolate`` in [p, p + 1).
    """
    return min(len((ids + SLACK).floor().unique()), len((ids - SLACK).ceil().unique()))


def _separate(layouts: ImageLayouts, recipe: Recipe) -> bool:
    """Whether each run that comes out of the fusion is one encoder's own."""
    return len(layouts.runs) == len(recipe.encoders)


def _fillers(layouts: ImageLayouts) -> list[Size]:
    """Large images whose shapes fill each grid of tiles of each encoder, and a square one."""
    sizes = [(4096, 4096)]
    for run in layouts.runs:
        height, width = run.views.picture
        grids = run.views.tiling.grids if run.views.tiling else []
        sizes += [(rows * height, cols * width) for rows, cols in grids]
    return sizes


def _encoder_budget(kind: type[VisionEncoder], table: Any, name: str, size: Size) -> EncoderBudget:
    """What is known of an encoder before fusion."""
    facts, place = kind.describe(table), kind.weights(table)
    tiles = EncoderViews(kind=kind, options=table, tiling=table.tiling).tiles(size)
    return EncoderBudget(
        name=name,
        use=table.use,
        image=f"{facts.image_size[0]}x{facts.image_size[1]}" + (f" x {tiles} tiles" if table.tiling else ""),
        grid=str(facts.shape.grid or "none"),
        dim=facts.shape.dim,
        tokens_in=facts.shape.tokens * tiles,
        tokens_out=None,
        positions=None,
        parameters=facts.parameters,
        flops=facts.flops * tiles if facts.flops is not None else None,
        license=facts.license.name,
        commercial=facts.license.commercial,
        weights="not needed" if not place.needed else str(place.path) if place.path else f"MISSING: {place.install}",
    )


def _grids(layout: VisualLayout, source: int) -> str:
    """The grids of an encoder's views as they reach the language model, such as 24x24 + 36x48."""
    grids = []
    for view in layout.view[layout.source == source].unique().tolist():
        coords = layout.coords[(layout.source == source) & (layout.view == view)]
        rows, cols = (int(most) + 1 for most in coords.max(dim=0).values)
        grids.append(str(Grid(rows=rows, cols=cols)))
    return " + ".join(grids)


def image_positions(
    recipe: Recipe, registries: Registries, *, dim: int = 1, size: Size | None = None, sizes: Sequence[Size] = ()
) -> tuple[ImageLayouts, Size | None, Placed]:
    """Layouts, and the positions of one image: asked of the schemes themselves, not counted by a formula.

    Args:
        dim: the language model's width.
        size: height and width of the image, where tokens depend on it; the costliest of ``sizes`` if not given, or of
            the shapes that fill a grid of tiles.

    Returns:
        The layouts, the size that counts (None where it does not matter), and the positions.
    """
    layouts = recipe_layouts(recipe, registries, dim)
    if layouts.fixed:
        size = None
    elif size is None:
        size = max(sizes or _fillers(layouts), key=layouts.tokens)
    own = {index: table.positions for index, table in enumerate(recipe.encoders) if table.positions is not None}
    assigner = build_assigner(
        registries.position_schemes, recipe.positions, own, layout=layouts.widest(), dim=dim
    ).eval()
    return layouts, size, assigner.of_image(layouts.of(size))
