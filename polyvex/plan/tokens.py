"""Tokens and positions of each encoder, from a recipe alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyvex.hooks.manager import Registries
from polyvex.recipe.check import encoder_shapes, fused_shapes
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe
from polyvex.sequence import lay_out
from polyvex.tokens import VisualLayout


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
    """What one image takes: of each encoder in order, and in all (tokens after fusion, distinct position ids)."""

    encoders: list[EncoderBudget]
    tokens: int
    positions: int


def budgets(recipe: Recipe, registries: Registries, *, dim: int) -> VisualBudget:
    """The budget of one image, from the recipe's tables alone; ``dim`` is the language model's width."""
    inputs = encoder_shapes(recipe, registries)
    outputs = fused_shapes(recipe, registries, dim)
    layout = VisualLayout.of(outputs)
    ids = _position_ids(recipe, registries, layout)
    rows = []
    for index, (table, name) in enumerate(zip(recipe.encoders, encoder_names(recipe), strict=True)):
        facts = registries.encoders[table.use].describe(table)
        place = registries.encoders[table.use].weights(table)
        where = "not needed" if not place.needed else str(place.path) if place.path else f"MISSING: {place.install}"
        own_run = outputs[index] if len(outputs) == len(inputs) else None
        rows.append(
            EncoderBudget(
                name=name,
                use=table.use,
                image=f"{facts.image_size[0]}x{facts.image_size[1]}",
                grid=str(own_run.grid if own_run else inputs[index].grid),
                dim=facts.shape.dim,
                tokens_in=facts.shape.tokens,
                tokens_out=own_run.tokens if own_run else None,
                positions=len(ids[layout.source == index].unique()) if own_run else None,
                parameters=facts.parameters,
                flops=facts.flops,
                license=facts.license.name,
                commercial=facts.license.commercial,
                weights=where,
            )
        )
    return VisualBudget(encoders=rows, tokens=layout.tokens, positions=len(ids.unique()))


def _position_ids(recipe: Recipe, registries: Registries, layout: VisualLayout) -> Tensor:
    """Position ids of one image: asked of the scheme itself, not counted by a formula."""
    scheme: Any = registries.position_schemes[recipe.positions.use](recipe.positions, layout=layout, dim=1)
    places = torch.ones(1, layout.tokens, dtype=torch.bool)
    return scheme.assign(lay_out(places, places, layout)).ids[0]
