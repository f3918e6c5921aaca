"""Experts choose tokens: the router ``expert_choice`` (Zhou et al., arXiv 2202.09368)."""

import math
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.moe.routers.base import Router, RouterOptions, best_first, logits_of
from polyvex.moe.routing import Routing


class ExpertChoiceOptions(RouterOptions):
    """Options of the ``expert_choice`` router."""

    capacity: float = Field(default=2.0, gt=0, description="Experts that work on a token, on average.")
    init_std: float = Field(default=0.02, gt=0, description="Standard deviation of the router's first weights.")


class ExpertChoiceRouter(Router[ExpertChoiceOptions]):
    """Each expert takes the tokens of a row that it gives the highest probability (arXiv 2202.09368, eq. 1–2).

    With S = softmax(x W) over experts, an expert takes the ⌈T · capacity / E⌉ tokens of greatest S, T counting the real
    tokens of the row, and weighs them by S. Loads are even by themselves; a token may get none of the experts, or all.
    Which tokens win depends on all tokens of the row, later ones too, so it cannot read from left to right. In the
    paper all tokens of a batch compete; here those of a row, so that samples do not depend on each other.
    """

    Options = ExpertChoiceOptions
    summary = "experts choose tokens; loads are even, but it sees later tokens"
    causal: ClassVar[bool] = False

    def __init__(self, options: ExpertChoiceOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.check(options, num_experts=num_experts)
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight, std=options.init_std)

    @classmethod
    def check(cls, options: ExpertChoiceOptions, *, num_experts: int) -> None:
        """On average no more experts than there are."""
        if options.capacity > num_experts:
            raise ValueError(
                f"router capacity is {options.capacity}, but there are only {num_experts} experts. Lower it, or add "
                f"experts"
            )

    @classmethod
    def experts_per_token(cls, options: ExpertChoiceOptions, *, num_experts: int) -> int:
        """The average, rounded up."""
        return math.ceil(options.capacity)

    @classmethod
    def weights_sum_to_one(cls, options: ExpertChoiceOptions) -> bool:
        """Never: a token may have no expert at all."""
        return False

    @classmethod
    def may_drop(cls, options: ExpertChoiceOptions) -> bool:
        """Always: tokens that no expert chooses pass by."""
        return True

    def forward(self, tokens: Float[Tensor, "T D"], valid: Bool[Tensor, "batch seq"] | None = None) -> Routing:
        """Let each expert choose in each row. The choices of a token come best first, those not made last."""
        logits = logits_of(tokens, self.weight)
        probs = logits.softmax(dim=-1)
        if valid is None:
            valid = torch.ones(1, len(tokens), dtype=torch.bool, device=tokens.device)
        batch, seq = valid.shape
        scores = probs.detach().reshape(batch, seq, -1).masked_fill(~valid[..., None], -1.0)
        order = scores.argsort(dim=1, descending=True, stable=True)
        place = order.argsort(dim=1)
        room = (valid.sum(dim=1) * self.options.capacity / self.num_experts).ceil()
        chosen = ((place < room[:, None, None]) & valid[..., None]).reshape(len(tokens), -1)
        _, expert = best_first(torch.where(chosen, probs.detach(), probs.detach() - 2), self.num_experts)
        return Routing(
            expert=expert,
            weight=probs.gather(1, expert),
            logits=logits,
            probs=probs,
            kept=chosen.gather(1, expert),
        )
