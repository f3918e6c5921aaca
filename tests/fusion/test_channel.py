"""Channel concatenation, on maps small enough to work out by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from polyvex.fusion import ChannelFusion, MLPFusion
from polyvex.fusion.channel import ChannelOptions
from polyvex.fusion.mlp import MLPFusionOptions
from polyvex.tokens import Grid, TokenShape, VisualTokens

ROW = TokenShape(tokens=2, dim=1, grid=Grid(rows=1, cols=2))
WIDE = TokenShape(tokens=4, dim=1, grid=Grid(rows=1, cols=4))


def fuse(inputs: Sequence[TokenShape], dim: int = 2, **options: Any) -> ChannelFusion:
    torch.manual_seed(0)
    return ChannelFusion(ChannelOptions(**options), inputs=inputs, dim=dim)


def tokens(shape: TokenShape, *values: float) -> VisualTokens:
    return VisualTokens.on_grid(
        torch.tensor(values, dtype=torch.float32).reshape(1, shape.tokens, shape.dim), shape.grid
    )


def identity(fusion: ChannelFusion) -> ChannelFusion:
    """With a linear layer that changes nothing."""
    with torch.no_grad():
        fusion.project[0].weight.copy_(torch.eye(2))
        fusion.project[0].bias.zero_()  # type: ignore[union-attr]
    return fusion


def test_channels_stand_side_by_side_in_the_order_of_the_encoders() -> None:
    fusion = identity(fuse([ROW, ROW], depth=1))
    assert fusion([tokens(ROW, 1, 2), tokens(ROW, 30, 40)]).values.tolist() == [[[1, 30], [2, 40]]]


def test_maps_are_brought_to_the_grid_that_is_named() -> None:
    # Of four columns, places of the two are means of neighbours: (10 + 20) / 2 and (30 + 40) / 2.
    fusion = identity(fuse([ROW, WIDE], grid=[1, 2], resample="area", depth=1))
    assert fusion([tokens(ROW, 1, 2), tokens(WIDE, 10, 20, 30, 40)]).values.tolist() == [[[1, 15], [2, 35]]]
    assert fusion.shapes == [TokenShape(tokens=2, dim=2, grid=Grid(rows=1, cols=2))]


def test_one_encoder_is_mlp_with_one_patch_per_token() -> None:
    shape = TokenShape(tokens=6, dim=5, grid=Grid(rows=2, cols=3))
    channel, mlp = fuse([shape], dim=7), MLPFusion(MLPFusionOptions(), inputs=[shape], dim=7)
    channel.project[0].load_state_dict(mlp.first[0].state_dict())
    channel.project[2].load_state_dict(mlp.rest[0][1].state_dict())
    part = [VisualTokens.on_grid(torch.randn(3, 6, 5), shape.grid)]
    assert torch.equal(channel(part).values, mlp(part).values)
    assert channel.shapes == mlp.shapes


def test_another_order_of_encoders_is_another_order_of_columns() -> None:
    one, other = fuse([ROW, ROW], dim=4), fuse([ROW, ROW], dim=4)
    with torch.no_grad():
        other.project[0].weight.copy_(one.project[0].weight[:, [1, 0]])
    parts = [tokens(ROW, 1, 2), tokens(ROW, 30, 40)]
    assert torch.allclose(one(parts).values, other(parts[::-1]).values)


def test_grids_that_differ_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"grids of 1x2, 1x4.*Name it: grid = \[1, 2\]"):
        fuse([ROW, WIDE])


def test_a_width_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden = 3 has no effect with depth = 1"):
        fuse([ROW], depth=1, hidden=3)
