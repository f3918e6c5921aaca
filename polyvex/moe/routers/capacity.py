"""A limit to how many tokens an expert takes, for routers in which tokens choose experts."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from polyvex.moe.routers.base import RouterOptions


class CapacityOptions(RouterOptions):
    """Options of routers whose experts can be full."""

    capacity: float | None = Field(
        default=None,
        gt=0,
        description="While training, an expert takes at most this times its even share of assignments; the rest is "
        "dropped. Left out, nothing is.",
    )
    eval_capacity: float | None = Field(
        default=None, gt=0, description="The same in evaluation and generation, where it is better left out."
    )
    priority: bool = Field(
        default=False,
        description="Whom a full expert keeps: the tokens with the greatest weights (V-MoE's batch priority), or the "
        "first ones.",
    )

    @model_validator(mode="after")
    def _priority_has_effect(self) -> Self:
        if self.priority and self.capacity is None and self.eval_capacity is None:
            raise ValueError("priority = true has no effect without a capacity; set one, or take it out")
        return self


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How many assignments an expert takes of a batch, and whom it prefers."""

    factor: float
    priority: bool

    @classmethod
    def of(cls, options: CapacityOptions, *, training: bool) -> "Limit | None":
        """The limit that holds now; None where nothing is dropped."""
        factor = options.capacity if training else options.eval_capacity
        return None if factor is None else cls(factor=factor, priority=options.priority)

    def kept(
        self, expert: Int[Tensor, "T K"], weight: Float[Tensor, "T K"], valid: Bool[Tensor, " T"], num_experts: int
    ) -> Bool[Tensor, "T K"]:
        """The choices that are carried out.

        An expert takes ⌈factor · K · T / E⌉ assignments (GShard, arXiv 2006.16668, and DeepSpeed, for K = 2), T the
        number of real tokens. All first choices queue up before all second ones; within a choice tokens come in their
        order, or with ``priority`` by their greatest weight (V-MoE, arXiv 2106.05974, §4). Padding is never kept.
        """
        tokens, k = expert.shape
        room = math.ceil(self.factor * k * int(valid.sum()) / num_experts)
        if self.priority:
            order = weight.max(dim=1).values.argsort(descending=True, stable=True)
        else:
            order = torch.arange(tokens, device=expert.device)
        queue = expert[order].T.reshape(-1)  # every first choice, then every second
        real = valid[order].repeat(k)
        standing = torch.nn.functional.one_hot(queue, num_experts) * real[:, None]
        place = standing.cumsum(dim=0).gather(1, queue[:, None])[:, 0] - 1
        taken = (real & (place < room)).reshape(k, tokens).T
        return torch.empty_like(taken).index_copy(0, order, taken)


def all_real(tokens: Tensor, valid: Bool[Tensor, "batch seq"] | None) -> Bool[Tensor, " T"]:
    """``valid`` token by token; true everywhere if it is not known."""
    return valid.reshape(-1) if valid is not None else torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
