"""Soft MoE over the tokens of all encoders, on two tokens and two slots that can be worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from polyvex.fusion import SoftMoEFusion
from polyvex.fusion.soft_moe import SoftMoEOptions
from polyvex.fusion.weights import record_encoder_weights
from polyvex.tokens import Grid, TokenShape, VisualTokens

POINT = TokenShape(tokens=1, dim=2, grid=Grid(rows=1, cols=1))
MAP = TokenShape(tokens=6, dim=5, grid=Grid(rows=2, cols=3))
LOOSE = TokenShape(tokens=4, dim=3)


def fuse(inputs: Sequence[TokenShape], dim: int = 2, **options: Any) -> SoftMoEFusion:
    torch.manual_seed(0)
    return SoftMoEFusion(SoftMoEOptions(**options), inputs=inputs, dim=dim)


def random_parts(inputs: Sequence[TokenShape]) -> list[VisualTokens]:
    torch.manual_seed(1)
    return [VisualTokens.on_grid(torch.randn(2, one.tokens, one.dim), one.grid) for one in inputs]


def by_hand(**options: Any) -> SoftMoEFusion:
    """Two encoders of one token each, which projection leaves alone; slots that look along the axes, with scale ln 3.

    Network 0 doubles its slot, network 1 negates its own.
    """
    fusion = fuse([POINT, POINT], networks=2, slots=1, **options)
    with torch.no_grad():
        for layer in fusion.project:
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        fusion.phi.copy_(torch.tensor([[7.0, 0.0], [0.0, 0.5]]))  # of any length: only directions count
        fusion.scale.fill_(math.log(3.0))
    for index, factor in enumerate((2.0, -1.0)):
        linear = nn.Linear(2, 2, bias=False)
        linear.weight = nn.Parameter(factor * torch.eye(2))
        fusion.networks[index] = linear
    return fusion


X = [torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[0.0, 8.0]]])]
# Logits: token 0 is along slot 0 and token 1 along slot 1, so L = ln 3 · identity, and D = C = (3 1 / 1 3) / 4.
# Slot 0 = .75 (4, 0) + .25 (0, 8) = (3, 2); slot 1 = .25 (4, 0) + .75 (0, 8) = (1, 6).
# The networks make (6, 4) and (-1, -6) of them.
SLOTS = [[6.0, 4.0], [-1.0, -6.0]]
# Token 0 = .75 (6, 4) + .25 (-1, -6) = (4.25, 1.5); token 1 = .25 (6, 4) + .75 (-1, -6) = (.75, -3.5).
TOKENS = [[4.25, 1.5], [0.75, -3.5]]


@pytest.mark.parametrize(("output", "expected"), [("slots", SLOTS), ("tokens", TOKENS)])
def test_slots_and_tokens_by_hand(output: str, expected: list[list[float]]) -> None:
    fusion = by_hand(output=output)
    parts = [VisualTokens.on_grid(values, POINT.grid) for values in X]
    assert torch.allclose(fusion(parts).values, torch.tensor([expected]), atol=1e-6)


def test_tokens_are_mixed_by_a_softmax_over_slots() -> None:
    # Both slots look along the first axis, so L = ln 3 · (1 1 / 0 0): D has (3, 1) / 4 in each column, C halves
    # throughout. Both slots are .75 (4, 0) + .25 (0, 8) = (3, 2), the networks make (6, 4) and (-3, -2) of them, and
    # both tokens are their mean.
    fusion = by_hand(output="tokens")
    with torch.no_grad():
        fusion.phi.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    parts = [VisualTokens.on_grid(values, POINT.grid) for values in X]
    assert torch.allclose(fusion(parts).values, torch.tensor([[[1.5, 1.0], [1.5, 1.0]]]), atol=1e-6)


def test_an_encoders_weight_is_its_tokens_share_of_the_slots() -> None:
    # Both slots look along the first axis: D is (3, 1) / 4 for both, so the encoders have .75 and .25 of each.
    fusion = by_hand()
    with torch.no_grad():
        fusion.phi.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    with record_encoder_weights(fusion) as weights:
        fusion([VisualTokens.on_grid(values, POINT.grid) for values in X])
    assert torch.allclose(weights[0], torch.tensor([[0.75, 0.25]]))


def test_weights_of_encoders_sum_to_one() -> None:
    fusion = fuse([MAP, LOOSE], dim=8, networks=3, slots=2)
    with record_encoder_weights(fusion) as weights:
        fusion(random_parts([MAP, LOOSE]))
    assert weights[0].shape == (2, 2)
    assert torch.allclose(weights[0].sum(dim=-1), torch.ones(2))


def test_what_is_mixed_is_not_normed() -> None:
    # Tokens twice as long have the same directions, so slots are twice as long.
    fusion = fuse([MAP, LOOSE], dim=8, networks=1, slots=3)
    fusion.networks[0] = nn.Identity()
    for layer in fusion.project:
        nn.init.zeros_(layer.bias)
    parts = random_parts([MAP, LOOSE])
    doubled = [VisualTokens(values=2 * part.values, layout=part.layout) for part in parts]
    assert torch.allclose(fusion(doubled).values, 2 * fusion(parts).values, atol=1e-6)


def test_slots_of_one_network_stand_together() -> None:
    fusion = fuse([MAP], dim=8, networks=2, slots=3)
    parts = random_parts([MAP])
    before = fusion(parts).values
    with torch.no_grad():
        fusion.networks[1][2].bias.add_(1.0)
    after = fusion(parts).values
    assert torch.equal(before[:, :3], after[:, :3])
    assert torch.allclose(before[:, 3:] + 1, after[:, 3:], atol=1e-6)


def test_the_order_of_an_encoders_tokens_does_not_matter_to_slots() -> None:
    fusion = fuse([MAP, LOOSE], dim=8)
    parts = random_parts([MAP, LOOSE])
    shuffled = [VisualTokens(values=parts[0].values.flip(1), layout=parts[0].layout), parts[1]]
    assert torch.allclose(fusion(shuffled).values, fusion(parts).values, atol=1e-6)


def test_tokens_keep_their_grids_and_slots_have_none() -> None:
    as_tokens = fuse([MAP, LOOSE], dim=8, output="tokens").shapes
    assert as_tokens == [TokenShape(tokens=6, dim=8, grid=MAP.grid), TokenShape(tokens=4, dim=8)]
    assert fuse([MAP, LOOSE], dim=8, networks=3, slots=5).shapes == [TokenShape(tokens=15, dim=8)]


def test_each_network_works_on_its_own_slots() -> None:
    # Two slots for each of two networks; network 0 gives tens, network 1 hundreds, so slots 0 and 1 are tens.
    fusion = fuse([POINT, POINT], networks=2, slots=2)
    for index, network in enumerate(fusion.networks):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            network[2].bias.fill_(10.0 ** (index + 1))
    values = fusion([VisualTokens.on_grid(torch.randn(1, 1, 2), POINT.grid) for _ in range(2)]).values
    assert values[0, :, 0].tolist() == [10, 10, 100, 100]
    # And a slot keeps its place on the way: networks that change nothing give back the mixtures, slot by slot.
    same = fuse([MAP, LOOSE], dim=2, networks=2, slots=3)
    same.networks = nn.ModuleList(nn.Identity() for _ in range(2))
    parts = random_parts([MAP, LOOSE])
    mixed = torch.cat([layer(part.values) for layer, part in zip(same.project, parts, strict=True)], dim=1)
    expected = same._logits(mixed).softmax(dim=1).mT @ mixed
    assert torch.allclose(same(parts).values, expected, atol=1e-6)
