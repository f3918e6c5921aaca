"""Noisy top-k gating: the router ``noisy_top_k`` (Shazeer et al., arXiv 1701.06538)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from polyvex.moe.routers.base import Router, RouterOptions, best_first, check_k, logits_of
from polyvex.moe.routing import Routing

LEAST = 1e-2
"""What is added to the noise's deviation, so that it is never zero."""


class NoisyTopKOptions(RouterOptions):
    """Options of the ``noisy_top_k`` router."""

    k: int = Field(default=2, ge=1, description="Experts per token.")


class NoisyTopKRouter(Router[NoisyTopKOptions]):
    """The k largest noisy logits, weighed by their softmax (arXiv 1701.06538, eq. 3–5).

    H(x)_i = (x W_g)_i + ε · (softplus((x W_noise)_i) + 10⁻²), ε normal, while it trains; H = x W_g after. Both matrices
    start at zero, so that all experts begin with equal loads. ``soft_load`` is P(x, i) of eq. 8–9: how likely expert i
    is among the k when its own noise is drawn once more. It is what the ``load`` loss makes even.
    """

    Options = NoisyTopKOptions
    summary = "the k largest logits after a learned noise, which is there while it trains (Shazeer)"

    def __init__(self, options: NoisyTopKOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.check(options, num_experts=num_experts)
        self.weight = nn.Parameter(torch.zeros(num_experts, dim))
        self.noise = nn.Parameter(torch.zeros(num_experts, dim))

    @classmethod
    def check(cls, options: NoisyTopKOptions, *, num_experts: int) -> None:
        """k must not exceed the number of experts."""
        check_k(options.k, num_experts)

    @classmethod
    def experts_per_token(cls, options: NoisyTopKOptions, *, num_experts: int) -> int:
        """It is k."""
        return options.k

    @classmethod
    def weights_sum_to_one(cls, options: NoisyTopKOptions) -> bool:
        """Always: they are a softmax over the kept."""
        return True

    @classmethod
    def learns_from_answers(cls, options: NoisyTopKOptions) -> bool:
        """Not with one expert: its weight is always 1."""
        return options.k > 1

    @classmethod
    def estimates_load(cls, options: NoisyTopKOptions, *, num_experts: int) -> bool:
        """Unless all experts work anyway."""
        return options.k < num_experts

    def forward(self, tokens: Float[Tensor, "T D"], valid: Bool[Tensor, "batch seq"] | None = None) -> Routing:
        """Decide for each token."""
        clean = logits_of(tokens, self.weight)
        noisy, load = clean, None
        if self.training:
            deviation = F.softplus(logits_of(tokens, self.noise)) + LEAST
            noisy = clean + torch.randn_like(clean) * deviation
            load = _chances(clean, noisy, deviation, self.options.k)
        kept, expert = best_first(noisy, self.options.k)
        return Routing(
            expert=expert, weight=kept.softmax(dim=-1), logits=noisy, probs=noisy.softmax(dim=-1), soft_load=load
        )


def _chances(
    clean: Float[Tensor, "T E"], noisy: Float[Tensor, "T E"], deviation: Float[Tensor, "T E"], k: int
) -> Float[Tensor, "T E"]:
    """Φ((clean − threshold) / deviation), the threshold being the k-th largest noisy logit of the other experts."""
    if k == noisy.shape[1]:
        return torch.ones_like(clean)
    ranked = noisy.sort(dim=-1, descending=True, stable=True)
    place: Int[Tensor, "T E"] = ranked.indices.argsort(dim=-1)
    inside, outside = ranked.values[:, k : k + 1], ranked.values[:, k - 1 : k]
    threshold = torch.where(place < k, inside, outside)
    return 0.5 * (1 + torch.erf((clean - threshold) / deviation / math.sqrt(2)))
