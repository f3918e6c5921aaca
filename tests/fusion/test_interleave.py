"""Interleaving: runs of one grid, whose tokens the model then puts side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from polyvex.assemble import build
from polyvex.fusion import InterleaveFusion, MLPFusion
from polyvex.fusion.interleave import InterleaveOptions
from polyvex.fusion.mlp import MLPFusionOptions
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.tokens import Grid, TokenShape, VisualTokens

SQUARE = TokenShape(tokens=4, dim=3, grid=Grid(rows=2, cols=2))
WIDE = TokenShape(tokens=8, dim=5, grid=Grid(rows=2, cols=4))


def fuse(inputs: Sequence[TokenShape], dim: int = 7, **options: Any) -> InterleaveFusion:
    torch.manual_seed(0)
    return InterleaveFusion(InterleaveOptions(**options), inputs=inputs, dim=dim)


def random_parts(inputs: Sequence[TokenShape]) -> list[VisualTokens]:
    return [VisualTokens.on_grid(torch.randn(2, one.tokens, one.dim), one.grid) for one in inputs]


@pytest.mark.parametrize("inputs", [[SQUARE], [SQUARE, SQUARE]])
def test_its_runs_are_those_of_mlp_with_layers_of_their_own(inputs: list[TokenShape]) -> None:
    fusion, mlp = fuse(inputs), MLPFusion(MLPFusionOptions(shared=False), inputs=inputs, dim=7)
    for index, layers in enumerate(fusion.project):
        layers[0].load_state_dict(mlp.first[index].state_dict())
        layers[2].load_state_dict(mlp.rest[index][1].state_dict())
    parts = random_parts(inputs)
    assert torch.equal(fusion(parts).values, mlp(parts).values)
    assert fusion.shapes == mlp.shapes


def test_another_grid_is_brought_to_the_one_that_is_named() -> None:
    fusion = fuse([SQUARE, WIDE], grid=[2, 2], resample="area")
    parts = random_parts([SQUARE, WIDE])
    halved = parts[1].values.unflatten(1, (4, 2)).mean(dim=2)  # neighbours of a row of four
    assert torch.allclose(fusion.runs(parts)[1], fusion.project[1](halved), atol=1e-6)
    assert fusion.shapes == [TokenShape(tokens=4, dim=7, grid=Grid(rows=2, cols=2))] * 2


def test_an_encoder_without_a_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder #2 gives 6 tokens without a grid"):
        fuse([SQUARE, TokenShape(tokens=6, dim=5)])


def test_grids_that_differ_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="grids of 2x2, 2x4"):
        fuse([SQUARE, WIDE])


def test_a_model_puts_tokens_of_one_place_side_by_side(
    registries: Registries, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(fusion={"use": "interleave", "grid": 2, "depth": 1})
    model = build(recipe, registries=registries, texts=["red or blue?"]).model
    assert model.layout.source.tolist() == [0, 1] * 4
    assert model.layout.coords.tolist() == [[0, 0]] * 2 + [[0, 1]] * 2 + [[1, 0]] * 2 + [[1, 1]] * 2
    tokens = {
        name: torch.randn(1, shape.tokens, shape.dim)
        for name, shape in zip(model.encoder_names, model._input_shapes, strict=True)
    }
    parts = [model._given(name, values) for name, values in tokens.items()]
    seen = model.see(None, tokens)
    assert seen is not None
    first, second = model.fusion.runs(parts)
    assert torch.allclose(seen.values[::2], first[0])
    assert torch.allclose(seen.values[1::2], second[0])
