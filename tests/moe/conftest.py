"""Routings and tokens for tests of the mixture of experts. Widths are multiples of 4: grouped GEMMs want 16 bytes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from polyvex.moe import Routing


@pytest.fixture
def routing_of() -> Callable[..., Routing]:
    """A function from probabilities [T E] and k to the routing of the k most probable, renormalised."""

    def make(probs: list[list[float]], k: int = 1) -> Routing:
        values = torch.tensor(probs)
        weight, expert = values.topk(k, dim=-1)
        return Routing(expert=expert, weight=weight / weight.sum(-1, keepdim=True), logits=values.log(), probs=values)

    return make


@pytest.fixture
def tokens() -> Tensor:
    """Twelve tokens of width 8."""
    return torch.randn(12, 8, generator=torch.Generator().manual_seed(3))
