"""Networks that choose tokens, on two encoders of two tokens that can be worked out by hand."""

import math

import pytest
import torch

from polyvex.fusion import ExpertChoiceFusion
from polyvex.fusion.expert_choice import ExpertChoiceFusionOptions
from polyvex.tokens import TokenShape, VisualTokens

PAIR = TokenShape(tokens=2, dim=2)
FIRST = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]])
SECOND = torch.tensor([[[0.0, math.log(3.0)], [math.log(9.0), 0.0]]])


def by_hand(capacity: float) -> ExpertChoiceFusion:
    """Projection leaves tokens alone; scores look along the axes; network 0 says (1, 0) to all, network 1 (0, 2)."""
    options = ExpertChoiceFusionOptions(networks=2, capacity=capacity, hidden=1)
    fusion = ExpertChoiceFusion(options, inputs=[PAIR, PAIR], dim=2)
    with torch.no_grad():
        for layer in fusion.project:
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        fusion.router.weight.copy_(torch.eye(2))
        for weights in fusion.networks.parameters():
            weights.zero_()
        fusion.networks.down_proj_bias.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    return fusion


def fused(fusion: ExpertChoiceFusion, images: int = 1) -> torch.Tensor:
    parts = [VisualTokens.on_grid(one.repeat(images, 1, 1), None) for one in (FIRST, SECOND)]
    return fusion(parts).values


def test_each_network_takes_its_best_tokens_and_the_others_pass_by() -> None:
    # Probabilities of network 0: 3/4, 1/2, 1/4, 9/10. With capacity 1 each network takes 4 · 1 / 2 = 2 tokens:
    # network 0 the last and the first, network 1 (1/4, 1/2, 3/4, 1/10) the third and the second.
    tokens = torch.cat([FIRST, SECOND], dim=1)
    added = (fused(by_hand(1.0)) - tokens)[0]
    assert torch.allclose(added, torch.tensor([[0.75, 0.0], [0.0, 1.0], [0.0, 1.5], [0.9, 0.0]]), atol=1e-6)


def test_a_smaller_capacity_leaves_tokens_as_they_are() -> None:
    added = (fused(by_hand(0.5)) - torch.cat([FIRST, SECOND], dim=1))[0]
    assert torch.allclose(added, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.5], [0.9, 0.0]]), atol=1e-6)


def test_images_do_not_compete() -> None:
    assert torch.allclose(fused(by_hand(1.0), images=3), fused(by_hand(1.0)).expand(3, 4, 2))


def test_scores_learn_from_what_networks_say() -> None:
    fusion = by_hand(1.0)
    fused(fusion).sum().backward()
    assert fusion.router.weight.grad is not None
    assert fusion.router.weight.grad.any()


def test_more_networks_for_a_token_than_there_are_is_refused() -> None:
    options = ExpertChoiceFusionOptions(networks=2, capacity=3.0)
    with pytest.raises(ValueError, match=r"capacity is 3\.0, but there are only 2"):
        ExpertChoiceFusion.describe(options, inputs=[PAIR], dim=2)
