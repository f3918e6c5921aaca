"""What weighs encoders can be read while a forward runs."""

import torch
from torch import nn

from polyvex.fusion.weights import EncoderWeights, record_encoder_weights


class Weighing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weigh = EncoderWeights()

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return self.weigh(scores.softmax(dim=-1))


def test_weights_are_recorded_inside_the_block_only_and_without_gradients() -> None:
    module = nn.Sequential(nn.Linear(2, 2), Weighing())
    with record_encoder_weights(module) as found:
        given = [module(torch.ones(1, 2)), module(torch.zeros(3, 2))]
    module(torch.ones(1, 2))
    assert [weights.shape for weights in found] == [(1, 2), (3, 2)]
    assert all(torch.equal(one, other) for one, other in zip(found, given, strict=True))
    assert not any(weights.requires_grad for weights in found)
    assert given[0].requires_grad


def test_hooks_are_taken_off_after_an_error() -> None:
    module = Weighing()
    try:
        with record_encoder_weights(module) as found:
            raise KeyError
    except KeyError:
        pass
    module(torch.ones(1, 2))
    assert found == []
