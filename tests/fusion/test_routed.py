"""Encoders that a question chooses, with a gate that can be worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from polyvex.fusion import Choice, MLPFusion, RoutedFusion
from polyvex.fusion.mlp import MLPFusionOptions
from polyvex.fusion.routed import RoutedOptions
from polyvex.fusion.weights import record_encoder_weights
from polyvex.tokens import Grid, TokenShape, VisualTokens

MAP = TokenShape(tokens=6, dim=5, grid=Grid(rows=2, cols=3))


def fuse(inputs: Sequence[TokenShape] = (MAP, MAP, MAP), dim: int = 4, **options: Any) -> RoutedFusion:
    torch.manual_seed(0)
    return RoutedFusion(RoutedOptions(**options), inputs=inputs, dim=dim)


def parts_of(fusion: RoutedFusion, images: int = 2) -> list[VisualTokens]:
    torch.manual_seed(1)
    return [VisualTokens.on_grid(torch.randn(images, 6, 5), MAP.grid) for _ in fusion.project]


def by_hand(k: int) -> RoutedFusion:
    """Three encoders. A question q gives scores q_1 · (ln 5, ln 3, ln 2): for q_1 = 1, p = (5, 3, 2) / 10."""
    fusion = fuse(k=k)
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[:, 0] = torch.tensor([math.log(5.0), math.log(3.0), math.log(2.0)])
        linear.bias.zero_()
    fusion.gate = nn.Sequential(nn.Identity(), linear)
    return fusion


# The second question turns the scores round: p = (1/5, 1/3, 1/2) / (31/30) = (6, 10, 15) / 31.
QUESTIONS = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [[1.0, 0, 0], [0, 0, 1.0]]),
        (2, [[5 / 8, 3 / 8, 0], [0, 10 / 25, 15 / 25]]),
        (3, [[0.5, 0.3, 0.2], [6 / 31, 10 / 31, 15 / 31]]),
        (9, [[0.5, 0.3, 0.2], [6 / 31, 10 / 31, 15 / 31]]),  # at most: there are but three
    ],
)
def test_the_largest_are_kept_and_sum_to_one(k: int, expected: list[list[float]]) -> None:
    assert torch.allclose(by_hand(k).choose(QUESTIONS).weights, torch.tensor(expected))


def test_each_image_is_a_weighted_sum_of_its_chosen_encoders() -> None:
    fusion = by_hand(2)
    parts = parts_of(fusion)
    first, second, third = (one(part.values) for one, part in zip(fusion.project, parts, strict=True))
    with record_encoder_weights(fusion) as weights:
        values = fusion(parts, fusion.choose(QUESTIONS)).values
    assert torch.allclose(values[0], 5 / 8 * first[0] + 3 / 8 * second[0], atol=1e-6)
    assert torch.allclose(values[1], 10 / 25 * second[1] + 15 / 25 * third[1], atol=1e-6)
    assert torch.allclose(weights[0], torch.tensor([[5 / 8, 3 / 8, 0], [0, 10 / 25, 15 / 25]]))


def test_an_encoder_that_was_not_chosen_need_not_run() -> None:
    fusion = by_hand(1)
    parts = parts_of(fusion, images=1)
    choice = fusion.choose(QUESTIONS[:1])
    zeros = VisualTokens(values=torch.zeros(1, 6, 5), layout=parts[0].layout)
    assert torch.equal(fusion(parts, choice).values, fusion([parts[0], zeros, zeros], choice).values)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_gate_learns_whatever_is_kept(k: int) -> None:
    fusion = by_hand(k)
    fusion(parts_of(fusion), fusion.choose(QUESTIONS)).values.square().sum().backward()
    gradient = fusion.gate[1].weight.grad
    assert isinstance(gradient, torch.Tensor)
    assert gradient.abs().max() > 1e-3


def test_without_a_choice_all_encoders_count_as_for_a_question_of_zero() -> None:
    fusion = fuse(k=1)
    with torch.no_grad():
        fusion.gate[1].bias.copy_(torch.tensor([math.log(5.0), math.log(3.0), math.log(2.0)]))
    parts = parts_of(fusion)
    weights = torch.tensor([[0.5, 0.3, 0.2]]).expand(2, 3)
    assert torch.allclose(fusion(parts).values, fusion(parts, Choice(weights=weights)).values, atol=1e-6)


def test_one_encoder_is_mlp_with_one_patch_per_token() -> None:
    fusion, mlp = fuse([MAP], dim=7), MLPFusion(MLPFusionOptions(), inputs=[MAP], dim=7)
    fusion.project[0][0].load_state_dict(mlp.first[0].state_dict())
    fusion.project[0][2].load_state_dict(mlp.rest[0][1].state_dict())
    parts = parts_of(fusion)
    expected = mlp(parts).values
    assert torch.allclose(fusion(parts).values, expected, atol=1e-6)
    assert torch.allclose(fusion(parts, fusion.choose(torch.randn(2, 7))).values, expected, atol=1e-6)


def test_it_says_that_it_routes() -> None:
    assert RoutedFusion.routes
    assert not MLPFusion.routes
