"""MLP fusion: LLaVA's connector with one encoder, MouSi's with several."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from polyvex.fusion import MLPFusion
from polyvex.fusion.mlp import MLPFusionOptions
from polyvex.tokens import TEXT, Grid, TokenShape, VisualTokens

GRID = TokenShape(tokens=8, dim=6, grid=Grid(rows=2, cols=4))
LOOSE = TokenShape(tokens=6, dim=5)  # tokens without a place in the image, as a Q-Former's


def fuse(inputs: Sequence[TokenShape] = (GRID,), dim: int = 8, **options: Any) -> MLPFusion:
    torch.manual_seed(0)
    return MLPFusion(MLPFusionOptions(**options), inputs=inputs, dim=dim)


def random_parts(inputs: Sequence[TokenShape], images: int = 3) -> list[VisualTokens]:
    torch.manual_seed(1)
    return [VisualTokens.on_grid(torch.randn(images, one.tokens, one.dim), one.grid) for one in inputs]


def test_one_encoder_is_llavas_two_layer_gelu_mlp() -> None:
    # LLaVA-1.5 `build_vision_projector`, mlp2x_gelu: Linear(d_v, D), GELU(), Linear(D, D).
    llava = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8))
    fusion = fuse()
    fusion.first[0].load_state_dict(llava[0].state_dict())
    fusion.rest[0][1].load_state_dict(llava[2].state_dict())
    part = random_parts([GRID])
    assert torch.equal(fusion(part).values, llava(part[0].values))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_depth_counts_the_linear_layers(depth: int) -> None:
    # mlpNx_gelu of LLaVA: N linear layers with a GELU between each two.
    linears = [module for module in fuse(depth=depth).modules() if isinstance(module, nn.Linear)]
    gelus = [module for module in fuse(depth=depth).modules() if isinstance(module, nn.GELU)]
    assert (len(linears), len(gelus)) == (depth, depth - 1)


@pytest.mark.parametrize(
    ("depth", "widths"),
    [
        (2, [(6, 3), (5, 3), (3, 8)]),
        (3, [(6, 3), (5, 3), (3, 3), (3, 8)]),
        (4, [(6, 3), (5, 3), *[(3, 3)] * 2, (3, 8)]),
    ],
)
def test_hidden_is_the_width_between_layers(depth: int, widths: list[tuple[int, int]]) -> None:
    linears = [one for one in fuse([GRID, LOOSE], depth=depth, hidden=3).modules() if isinstance(one, nn.Linear)]
    assert [(one.in_features, one.out_features) for one in linears] == widths


def test_hidden_of_the_models_width_is_the_default() -> None:
    parts = random_parts([GRID, LOOSE])
    assert torch.equal(fuse([GRID, LOOSE], hidden=8)(parts).values, fuse([GRID, LOOSE])(parts).values)


def test_hidden_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden = 3 has no effect with depth = 1"):
        fuse(depth=1, hidden=3)


def test_depth_one_is_a_linear_map() -> None:
    fusion = fuse(depth=1)
    part = random_parts([GRID])
    assert torch.equal(fusion(part).values, fusion.first[0](part[0].values))


def test_patches_join_along_a_row_like_a_strided_convolution() -> None:
    # MouSi's law: m patches per token is a 1-D convolution of kernel and stride m over the row-major run.
    fusion = fuse(patches_per_token=2, depth=1)
    convolution = nn.Conv1d(6, 8, kernel_size=2, stride=2)
    with torch.no_grad():
        # The linear layer sees [patch 0's 6 values, patch 1's 6 values].
        convolution.weight.copy_(fusion.first[0].weight.reshape(8, 2, 6).permute(0, 2, 1))
        convolution.bias.copy_(fusion.first[0].bias)  # type: ignore[union-attr]
    part = random_parts([GRID])
    expected = convolution(part[0].values.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(fusion(part).values, expected, atol=1e-6)


def test_no_token_is_made_of_two_rows() -> None:
    # Two rows of four, two patches per token: tokens 0 and 1 are of row 0. A change in row 1 leaves them alone.
    fusion = fuse(patches_per_token=2)
    part = random_parts([GRID], images=1)[0]
    changed = part.values.clone()
    changed[:, 4:] += 1
    before, after = fusion([part]).values, fusion([VisualTokens.on_grid(changed, GRID.grid)]).values
    assert torch.equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).any(dim=-1).all()


def test_joined_tokens_keep_rows_and_lose_columns() -> None:
    (shape,) = MLPFusion.describe(MLPFusionOptions(patches_per_token=2), inputs=[GRID], dim=8)
    assert shape == TokenShape(tokens=4, dim=8, grid=Grid(rows=2, cols=2))


def test_tokens_without_a_grid_join_in_their_order() -> None:
    (shape,) = MLPFusion.describe(MLPFusionOptions(patches_per_token=3), inputs=[LOOSE], dim=8)
    assert shape == TokenShape(tokens=2, dim=8, grid=None)


def test_runs_stay_whole_and_in_the_order_of_the_encoders() -> None:
    fusion = fuse([GRID, LOOSE])
    assert fusion.layout.source.tolist() == [0] * 8 + [1] * 6
    assert fusion.layout.coords[8:].unique().tolist() == [TEXT]
    parts = random_parts([GRID, LOOSE])
    values = fusion(parts).values
    assert torch.allclose(values[:, :8], fusion.rest[0](fusion.first[0](parts[0].values)), atol=1e-6)
    assert torch.allclose(values[:, 8:], fusion.rest[0](fusion.first[1](parts[1].values)), atol=1e-6)


def test_each_encoder_may_have_its_own_number_of_patches() -> None:
    fusion = fuse([GRID, LOOSE], patches_per_token=[4, 1])
    assert [shape.tokens for shape in fusion.shapes] == [2, 6]
    assert fusion(random_parts([GRID, LOOSE])).values.shape == (3, 8, 8)


@pytest.mark.parametrize(("shared", "stacks"), [(True, 1), (False, 2)])
def test_the_second_layer_is_shared_or_not(shared: bool, stacks: int) -> None:
    assert len(fuse([GRID, LOOSE], shared=shared).rest) == stacks


def test_unshared_with_equal_second_layers_is_shared() -> None:
    shared, own = fuse([GRID, LOOSE]), fuse([GRID, LOOSE], shared=False)
    own.first.load_state_dict(shared.first.state_dict())
    for stack in own.rest:
        stack.load_state_dict(shared.rest[0].state_dict())
    parts = random_parts([GRID, LOOSE])
    assert torch.allclose(shared(parts).values, own(parts).values, atol=1e-6)


def test_unshared_second_layers_are_told_apart() -> None:
    fusion = fuse([GRID, LOOSE], shared=False)
    parts = random_parts([GRID, LOOSE])
    before = fusion(parts).values
    with torch.no_grad():
        fusion.rest[1][1].weight.zero_()
    after = fusion(parts).values
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


def test_permuting_the_images_permutes_the_output() -> None:
    fusion = fuse([GRID, LOOSE])
    parts = random_parts([GRID, LOOSE])
    order = [2, 0, 1]
    permuted = [VisualTokens(values=part.values[order], layout=part.layout) for part in parts]
    assert torch.allclose(fusion(permuted).values, fusion(parts).values[order], atol=1e-6)


def test_what_comes_out_is_what_was_described() -> None:
    fusion = fuse([GRID, LOOSE], patches_per_token=[2, 3])
    values = fusion(random_parts([GRID, LOOSE])).values
    assert values.shape[1:] == (sum(shape.tokens for shape in fusion.shapes), 8)
    assert fusion.layout.tokens == values.shape[1]


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (
            [LOOSE, GRID],
            {"patches_per_token": 3},
            "patches_per_token is 3 for encoder #2, whose 4 columns it does not divide. Use one of 1, 2, 4",
        ),
        (
            [LOOSE],
            {"patches_per_token": 4},
            "patches_per_token is 4 for encoder #1, whose 6 tokens it does not divide. Use one of 1, 2, 3, 6",
        ),
        (
            [GRID],
            {"patches_per_token": [1, 2]},
            "patches_per_token has 2 numbers for 1 encoders. Give one number, or one per encoder",
        ),
    ],
)
def test_patches_that_do_not_fit_are_refused_with_a_way_out(
    inputs: list[TokenShape], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="patches_per_token") as caught:
        MLPFusion.describe(MLPFusionOptions(**options), inputs=inputs, dim=8)
    assert str(caught.value) == message


def test_a_token_count_that_divides_is_not_enough_where_columns_do_not() -> None:
    # 8 tokens divide by 8, but the rows are 4 wide: a token would be made of two rows.
    with pytest.raises(ValueError, match="4 columns"):
        MLPFusion.describe(MLPFusionOptions(patches_per_token=8), inputs=[GRID], dim=8)
