"""Tokens and positions of each encoder, from a recipe alone."""

from dataclasses import dataclass
from typing import Any

import torch

from polyvex.hooks.manager import Registries
from polyvex.recipe.check import encoder_shapes, fused_shapes
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe
from polyvex.sequence import lay_out
from polyvex.tokens import VisualLayout


@dataclass(frozen=True, kw_only=True)
class EncoderBudget:
    """What one encoder brings per image: tokens before and after fusion, positions used up, weights and licence."""

    name: str
    use: str
    image: str
    grid: str
    dim: int
    tokens_in: int
    tokens_out: int
    positions: int
    parameters: int
    flops: int | None
    license: str
    commercial: bool
    weights: str


def budgets(recipe: Recipe, registries: Registries, *, dim: int) -> tuple[list[EncoderBudget], int]:
    """The budget of each encoder in order, and the positions that one image takes in all."""
    inputs = encoder_shapes(recipe, registries)
    outputs = fused_shapes(recipe, registries, dim)
    layout = VisualLayout.of(outputs)
    used = positions_by_source(recipe, registries, layout)
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
                tokens_out=own_run.tokens if own_run else 0,
                positions=used.get(index, 0),
                parameters=facts.parameters,
                flops=facts.flops,
                license=facts.license.name,
                commercial=facts.license.commercial,
                weights=where,
            )
        )
    return rows, sum(used.values())


def positions_by_source(recipe: Recipe, registries: Registries, layout: VisualLayout) -> dict[int, int]:
    """How many positions each encoder's run of one image takes: measured with the scheme itself, not by formula."""
    scheme: Any = registries.position_schemes[recipe.positions.use](recipe.positions, layout=layout, dim=1)
    places = torch.ones(1, layout.tokens, dtype=torch.bool)
    sequence = lay_out(places, places, layout)
    ids = scheme.assign(sequence).ids[0]
    return {int(source): len(ids[layout.source == source].unique()) for source in layout.source.unique()}
