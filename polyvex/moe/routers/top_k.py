"""Each token takes its k most probable experts: the routers ``top_k`` and ``switch``."""

from typing import Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from polyvex.moe.routers.base import Router, best_first, check_k, logits_of
from polyvex.moe.routers.capacity import CapacityOptions, Limit, all_real
from polyvex.moe.routing import Routing


class TopKOptions(CapacityOptions):
    """Options of the ``top_k`` router."""

    k: int = Field(default=2, ge=1, description="Experts per token.")
    softmax: Literal["before", "after"] = Field(
        default="before",
        description="before takes probabilities over all experts and keeps the k largest; after keeps the k largest "
        "logits and takes probabilities over those.",
    )
    renormalize: bool = Field(
        default=True,
        description="Scale the kept weights to sum to one (DeepSpeed's top-2, Mixtral); false keeps raw probabilities.",
    )
    second_choice_noise: Literal["none", "gumbel"] = Field(
        default="none",
        description="gumbel adds Gumbel noise to the logits before the second choice while training, so that it is "
        "sampled by probability (DeepSpeed's top-2 gate, GShard's random second choice). For k = 2.",
    )
    init_std: float = Field(default=0.02, gt=0, description="Standard deviation of the router's first weights.")

    @model_validator(mode="after")
    def _noise_of_a_second_choice(self) -> Self:
        if self.second_choice_noise != "none" and self.k != 2:
            raise ValueError(
                f"second_choice_noise = '{self.second_choice_noise}' needs k = 2, and k is {self.k}. Remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _after_sums_to_one(self) -> Self:
        if self.softmax == "after" and not self.renormalize:
            raise ValueError('renormalize = false has no effect with softmax = "after", whose weights sum to one')
        return self


class TopKRouter(Router[TopKOptions]):
    """Softmax over all experts in float32, keep the k largest; ties go to the lower index.

    The form of MoE-LLaVA (arXiv 2401.15947, eq. 5–6); ``renormalize`` is what its code (DeepSpeed 0.9.5, top-2)
    and Mixtral do, the printed equation keeps raw probabilities. ``softmax = "after"`` is how Shazeer and Mixtral's
    paper write it; without a capacity it is the same as ``renormalize``. With a ``capacity``, and ``renormalize``, the
    weights of the choices that are kept sum to one, as in DeepSpeed; with ``softmax = "after"`` they stay as they were.
    """

    Options = TopKOptions
    groups = True
    summary = "the k most probable experts per token; drops nothing unless a capacity is set"

    def __init__(self, options: TopKOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.check(options, num_experts=num_experts)
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight, std=options.init_std)

    @torch.no_grad()
    def group(self, size: int) -> None:
        """The first of a group lends its row to the others; ties then go to neighbours."""
        self.weight.copy_(self.weight[::size].repeat_interleave(size, dim=0))

    @classmethod
    def check(cls, options: TopKOptions, *, num_experts: int) -> None:
        """k must not exceed the number of experts."""
        check_k(options.k, num_experts)

    @classmethod
    def experts_per_token(cls, options: TopKOptions, *, num_experts: int) -> int:
        """It is k."""
        return options.k

    @classmethod
    def weights_sum_to_one(cls, options: TopKOptions) -> bool:
        """Only when renormalised; and a token that a full expert drops when it answers weighs nothing."""
        return options.renormalize and options.eval_capacity is None

    @classmethod
    def learns_from_answers(cls, options: TopKOptions) -> bool:
        """Not with one expert, renormalised: its weight is always 1, whatever the router says."""
        return not (options.k == 1 and options.renormalize)

    @classmethod
    def may_drop(cls, options: TopKOptions) -> bool:
        """Only with a capacity."""
        return options.capacity is not None

    def forward(self, tokens: Float[Tensor, "T D"], valid: Bool[Tensor, "batch seq"] | None = None) -> Routing:
        """Decide for each token; a capacity compares the tokens of the whole batch."""
        logits = logits_of(tokens, self.weight)
        probs = logits.softmax(dim=-1)
        options, kept = self.options, None
        weight, expert = best_first(probs, options.k)
        if options.second_choice_noise == "gumbel" and self.training:
            expert = _sampled_second(logits, expert)
            weight = probs.gather(1, expert)
        if options.softmax == "after":
            weight = logits.gather(1, expert).softmax(dim=-1)
        if (limit := Limit.of(options, training=self.training)) is not None:
            kept = limit.kept(expert, weight, all_real(tokens, valid), self.num_experts)
        if options.renormalize and options.softmax == "before":
            share = weight if kept is None else weight * kept
            weight = share / share.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        return Routing(expert=expert, weight=weight, logits=logits, probs=probs, kept=kept)


def _sampled_second(logits: Float[Tensor, "T E"], expert: Int[Tensor, "T 2"]) -> Int[Tensor, "T 2"]:
    """The first choice, and a second one drawn by the softmax of the other logits: the largest of noisy logits."""
    noise = -torch.empty_like(logits).exponential_().log()
    first = expert[:, :1]
    second = (logits.detach() + noise).scatter(1, first, -torch.inf).argmax(dim=1, keepdim=True)
    return torch.cat([first, second], dim=1)


class SwitchOptions(CapacityOptions):
    """Options of the ``switch`` router."""

    jitter: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="While training, what the router reads is multiplied by numbers between 1 - jitter and 1 + jitter.",
    )
    init_std: float = Field(default=0.02, gt=0, description="Standard deviation of the router's first weights.")


class SwitchRouter(Router[SwitchOptions]):
    """One expert per token, weighed by its probability (Switch Transformer, arXiv 2101.03961, eq. 1–2).

    The weight is below one, so that the answers train the router; copies of one FFN therefore give less than the FFN
    gave. ``jitter`` (appendix of that paper) is never applied in evaluation.
    """

    Options = SwitchOptions
    summary = "the most probable expert alone, weighed by its probability (Switch Transformer)"

    def __init__(self, options: SwitchOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight, std=options.init_std)

    @classmethod
    def check(cls, options: SwitchOptions, *, num_experts: int) -> None:
        """One expert is always there."""

    @classmethod
    def experts_per_token(cls, options: SwitchOptions, *, num_experts: int) -> int:
        """One."""
        return 1

    @classmethod
    def weights_sum_to_one(cls, options: SwitchOptions) -> bool:
        """Never: a weight is a probability."""
        return False

    @classmethod
    def may_drop(cls, options: SwitchOptions) -> bool:
        """Only with a capacity."""
        return options.capacity is not None

    def forward(self, tokens: Float[Tensor, "T D"], valid: Bool[Tensor, "batch seq"] | None = None) -> Routing:
        """Decide for each token; a capacity compares the tokens of the whole batch."""
        seen = tokens.float()
        if self.training and self.options.jitter:
            seen = seen * (1 + self.options.jitter * (2 * torch.rand_like(seen) - 1))
        logits = logits_of(seen, self.weight)
        probs = logits.softmax(dim=-1)
        weight, expert = best_first(probs, 1)
        limit = Limit.of(self.options, training=self.training)
        kept = limit.kept(expert, weight, all_real(tokens, valid), self.num_experts) if limit is not None else None
        return Routing(expert=expert, weight=weight, logits=logits, probs=probs, kept=kept)
