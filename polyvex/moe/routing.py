"""A routing decision as data, and the way of tokens to experts and back.

Legend of this package: T tokens, E experts, K experts chosen per token, D model width, I expert width, A assignments
of a token to an expert.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Routing:
    """Which experts each token goes to.

    ``expert`` and ``weight`` are the K choices, best first; ``logits`` and ``probs`` cover all experts, in float32.
    ``kept`` is false where a choice is not carried out, because its expert was full or did not choose the token; None
    where all are. ``soft_load`` is a router's differentiable estimate of how likely each token goes to each expert.
    """

    expert: Int[Tensor, "T K"]
    weight: Float[Tensor, "T K"]
    logits: Float[Tensor, "T E"]
    probs: Float[Tensor, "T E"]
    kept: Bool[Tensor, "T K"] | None = None
    soft_load: Float[Tensor, "T E"] | None = None

    @property
    def num_experts(self) -> int:
        """E."""
        return self.probs.shape[-1]

    def masked(self, valid: Bool[Tensor, " T"]) -> Self:
        """The decisions of the tokens that ``valid`` keeps."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[valid] for name, value in values.items() if value is not None})

    def counts(self) -> Float[Tensor, " E"]:
        """Assignments that each expert gets; what is not carried out does not count."""
        chosen = self.expert if self.kept is None else self.expert[self.kept]
        return torch.bincount(chosen.reshape(-1), minlength=self.num_experts).float()

    def load(self) -> Float[Tensor, " E"]:
        """Share of all assignments that each expert gets; sums to one, or is zero without any."""
        counts = self.counts()
        return counts / counts.sum().clamp(min=1)

    def gates(self) -> Float[Tensor, "T E"]:
        """The weights by expert, zero where a token does not go."""
        weight = self.weight if self.kept is None else self.weight * self.kept
        return torch.zeros_like(self.probs).scatter(1, self.expert, weight)

    def dropped(self) -> Float[Tensor, ""]:
        """Share of tokens that no expert works on."""
        if self.kept is None or not len(self.kept):
            return self.probs.new_zeros(())
        return (~self.kept.any(dim=1)).float().mean()

    def dispatch(self, tokens: Float[Tensor, "T D"]) -> "Dispatched":
        """Tokens sorted by the expert that works on them."""
        k = self.expert.shape[1]
        expert = self.expert.reshape(-1)
        if self.kept is None:
            order, chosen = expert.argsort(stable=True), expert
        else:
            last = torch.where(self.kept.reshape(-1), expert, self.num_experts)
            order = last.argsort(stable=True)[: int(self.kept.sum())]
            chosen = expert[order]
        sizes = torch.bincount(chosen, minlength=self.num_experts)
        return Dispatched(rows=tokens[order // k], sizes=sizes, order=order)

    def combine(self, outputs: Float[Tensor, "A D"], sent: "Dispatched") -> Float[Tensor, "T D"]:
        """What experts made of the tokens, added up by weight. A token that no expert worked on becomes zero."""
        tokens, k = self.expert.shape
        weighted = outputs * self.weight.reshape(-1)[sent.order, None].to(outputs.dtype)
        # Unsort and sum over K instead of index_add_: the order of additions, and so the result, is then fixed.
        places = weighted.new_zeros(tokens * k, outputs.shape[-1])
        return places.index_copy(0, sent.order, weighted).reshape(tokens, k, outputs.shape[-1]).sum(dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatched:
    """Rows for the experts, one expert's after another's; ``sizes`` counts each one's, ``order`` is where from."""

    rows: Float[Tensor, "A D"]
    sizes: Int[Tensor, " E"]
    order: Int[Tensor, " A"]
