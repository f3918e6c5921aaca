"""The gated sum, on maps small enough to work out by hand."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch

from polyvex.fusion import GatedFusion, MLPFusion
from polyvex.fusion.gated import GatedOptions
from polyvex.fusion.mlp import MLPFusionOptions
from polyvex.fusion.weights import record_encoder_weights
from polyvex.tokens import Grid, TokenShape, VisualTokens

ROW = TokenShape(tokens=2, dim=1, grid=Grid(rows=1, cols=2))
MAP = TokenShape(tokens=6, dim=5, grid=Grid(rows=2, cols=3))
Gate = Literal["sample", "token"]


def fuse(inputs: Sequence[TokenShape], dim: int = 1, **options: Any) -> GatedFusion:
    torch.manual_seed(0)
    return GatedFusion(GatedOptions(**options), inputs=inputs, dim=dim)


def tokens(*values: float) -> VisualTokens:
    return VisualTokens.on_grid(torch.tensor(values).reshape(1, 2, 1), ROW.grid)


def plain(gate: Gate) -> GatedFusion:
    """Two encoders of one number each, which projection leaves alone; scores are ln 3 · h_1 and 0."""
    fusion = fuse([ROW, ROW], depth=1, gate=gate)
    with torch.no_grad():
        for project in fusion.project:
            project[0].weight.fill_(1.0)
            project[0].bias.zero_()
        fusion.gate.weight.copy_(torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]))
    return fusion


def test_each_token_weighs_the_encoders() -> None:
    # Token 0: h = (1, 5), scores (ln 3, 0), weights (3, 1) / 4, sum .75 + 1.25 = 2.
    # Token 1: h = (0, 8), scores (0, 0), weights (1, 1) / 2, sum 4.
    fusion = plain("token")
    with record_encoder_weights(fusion) as weights:
        values = fusion([tokens(1.0, 0.0), tokens(5.0, 8.0)]).values
    assert torch.allclose(values.flatten(), torch.tensor([2.0, 4.0]))
    assert torch.allclose(weights[0], torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]))


def test_an_image_weighs_the_encoders_once() -> None:
    # The mean of h_1 is (2 + 0) / 2 = 1, so scores are (ln 3, 0), weights (3, 1) / 4 for both tokens:
    # .75 · 2 + .25 · 5 = 2.75 and 0 + .25 · 8 = 2.
    fusion = plain("sample")
    with record_encoder_weights(fusion) as weights:
        values = fusion([tokens(2.0, 0.0), tokens(5.0, 8.0)]).values
    assert torch.allclose(values.flatten(), torch.tensor([2.75, 2.0]))
    assert torch.allclose(weights[0], torch.tensor([[0.75, 0.25]]))


@pytest.mark.parametrize("gate", ["sample", "token"])
def test_the_gate_sees_one_encoder_behind_the_other(gate: Gate) -> None:
    # Its first four columns are for the first encoder's four numbers: with the others zero, only that one moves it.
    fusion = fuse([MAP, MAP], dim=4, gate=gate)
    with torch.no_grad():
        fusion.gate.weight[:, :4].normal_()
    one, other, third = (VisualTokens.on_grid(torch.randn(1, 6, 5), MAP.grid) for _ in range(3))
    with record_encoder_weights(fusion) as weights:
        for parts in ([one, other], [one, third], [third, other]):
            fusion(parts)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


@pytest.mark.parametrize("gate", ["sample", "token"])
def test_it_starts_as_the_mean_of_the_encoders(gate: Gate) -> None:
    fusion = fuse([MAP, MAP, MAP], dim=4, gate=gate)
    parts = [VisualTokens.on_grid(torch.randn(2, 6, 5), MAP.grid) for _ in range(3)]
    projected = [one(part.values) for one, part in zip(fusion.project, parts, strict=True)]
    assert torch.allclose(fusion(parts).values, torch.stack(projected).mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("gate", ["sample", "token"])
def test_the_gate_learns_from_its_start(gate: Gate) -> None:
    fusion = fuse([MAP, MAP], dim=4, gate=gate)
    parts = [VisualTokens.on_grid(torch.randn(2, 6, 5), MAP.grid) for _ in range(2)]
    fusion(parts).values.square().sum().backward()
    assert fusion.gate.weight.grad is not None
    assert fusion.gate.weight.grad.abs().max() > 0


@pytest.mark.parametrize("gate", ["sample", "token"])
def test_one_encoder_is_mlp_with_one_patch_per_token(gate: Gate) -> None:
    fusion, mlp = fuse([MAP], dim=7, gate=gate), MLPFusion(MLPFusionOptions(), inputs=[MAP], dim=7)
    fusion.project[0][0].load_state_dict(mlp.first[0].state_dict())
    fusion.project[0][2].load_state_dict(mlp.rest[0][1].state_dict())
    torch.nn.init.normal_(fusion.gate.weight)
    part = [VisualTokens.on_grid(torch.randn(2, 6, 5), MAP.grid)]
    assert torch.allclose(fusion(part).values, mlp(part).values)


def test_maps_are_brought_to_the_grid_that_is_named() -> None:
    fusion = fuse([MAP, ROW], dim=4, grid=[1, 2], resample="area")
    assert fusion.shapes == [TokenShape(tokens=2, dim=4, grid=Grid(rows=1, cols=2))]
    parts = [VisualTokens.on_grid(torch.randn(1, 6, 5), MAP.grid), tokens(1.0, 2.0)]
    assert fusion(parts).values.shape == (1, 2, 4)
