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


def test_a_split_first_layer_is_deepseek_vls() -> None:
    """Its projector maps each map to half of the width, joins them, and goes on with GELU and a linear layer."""
    shapes = [TokenShape(tokens=2, dim=width, grid=Grid(rows=1, cols=2)) for width in (3, 5)]
    fusion = fuse(shapes, dim=6, split=True)
    high, low = torch.randn(4, 2, 3), torch.randn(4, 2, 5)
    (w0, b0), (w1, b1) = ((layer.weight, layer.bias) for layer in fusion.first)  # type: ignore[union-attr]
    assert w0.shape == (3, 3)
    assert w1.shape == (3, 5)
    joined = torch.cat([high @ w0.T + b0, low @ w1.T + b1], dim=-1)
    last: Any = fusion.project[-1]
    expected = torch.nn.functional.gelu(joined) @ last.weight.T + last.bias
    parts = [VisualTokens.on_grid(values, shape.grid) for values, shape in zip((high, low), shapes, strict=True)]
    assert torch.allclose(fusion(parts).values, expected, atol=1e-6)
    assert sum(weight.numel() for weight in fusion.parameters()) == 3 * 3 + 3 + 5 * 3 + 3 + 6 * 6 + 6


def test_a_split_first_layer_of_one_encoder_is_the_whole_layer() -> None:
    split, whole = fuse([WIDE], split=True), fuse([WIDE])
    split.first[0].load_state_dict(whole.project[0].state_dict())  # type: ignore[index]
    split.project[-1].load_state_dict(whole.project[-1].state_dict())
    part = [tokens(WIDE, 1, 2, 3, 4)]
    assert torch.equal(split(part).values, whole(part).values)


def test_a_split_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="split = true needs a second layer"):
        fuse([ROW, ROW], depth=1, split=True)


def test_shares_that_cannot_be_equal_add_up() -> None:
    fusion = fuse([ROW, ROW], dim=3, split=True)
    assert [layer.out_features for layer in fusion.first] == [2, 1]  # type: ignore[union-attr]


def test_corners_are_aligned_as_in_eagle() -> None:
    # Of four columns at 0, 1, 2, 3, two with their corners aligned are the first and the last.
    fusion = identity(fuse([ROW, WIDE], grid=[1, 2], align_corners=True, depth=1))
    assert fusion([tokens(ROW, 1, 2), tokens(WIDE, 10, 20, 30, 40)]).values.tolist() == [[[1, 10], [2, 40]]]
