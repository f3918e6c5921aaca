"""Slots instead of choices: the router ``soft`` (Soft MoE, Puigcerver et al., arXiv 2308.00951)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.moe.routers.base import Router, RouterOptions, best_first
from polyvex.moe.routing import Dispatched, Routing


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotRouting(Routing):
    """Every slot is a mixture of the tokens of its row, every token a mixture of what became of the slots.

    ``into`` and ``back`` hold those mixtures, for ``batch`` rows; S counts the slots of all experts. ``weight`` is what
    a token takes back from each expert.
    """

    into: Float[Tensor, "T S"]
    back: Float[Tensor, "T S"]
    batch: int = field(default=1)

    def masked(self, valid: Bool[Tensor, " T"]) -> Routing:
        """The decisions of the tokens that ``valid`` keeps, as one that can no longer be carried out."""
        plain = Routing(expert=self.expert, weight=self.weight, logits=self.logits, probs=self.probs)
        return plain.masked(valid)

    def dispatch(self, tokens: Float[Tensor, "T D"]) -> Dispatched:
        """Each expert's slots, row after row."""
        into, values = self._rows(self.into.to(tokens.dtype)), self._rows(tokens)
        slots = rearrange(into.mT @ values, "b (e p) d -> (e b p) d", e=self.num_experts)
        sizes = torch.full((self.num_experts,), len(slots) // self.num_experts, device=tokens.device)
        return Dispatched(rows=slots, sizes=sizes, order=torch.arange(len(slots), device=tokens.device))

    def combine(self, outputs: Float[Tensor, "A D"], sent: Dispatched) -> Float[Tensor, "T D"]:
        """Mix what experts made of their slots for each token."""
        worked = rearrange(outputs, "(e b p) d -> b (e p) d", e=self.num_experts, b=self.batch)
        return (self._rows(self.back.to(outputs.dtype)) @ worked).flatten(0, 1)

    def _rows(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.batch, -1))


class SoftOptions(RouterOptions):
    """Options of the ``soft`` router."""

    slots: int = Field(default=16, ge=1, description="Slots of each expert, for each row of tokens.")


class SoftRouter(Router[SoftOptions]):
    """Slots mix the tokens of a row, experts work on slots, and tokens mix them again (arXiv 2308.00951, eq. 1–4).

    Logits are the scaled cosines of tokens and slots, as in the paper's code. Padding goes into no slot. Every slot
    sees all tokens of its row, later ones too, so it cannot read from left to right.
    """

    Options = SoftOptions
    summary = "slots mix all tokens of a row, experts work on slots (Soft MoE); it sees later tokens"
    causal: ClassVar[bool] = False

    def __init__(self, options: SoftOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.phi = nn.Parameter(torch.randn(dim, num_experts * options.slots) / dim**0.5)
        self.scale = nn.Parameter(torch.ones(()))

    @classmethod
    def check(cls, options: SoftOptions, *, num_experts: int) -> None:
        """Any number of experts will do."""

    @classmethod
    def experts_per_token(cls, options: SoftOptions, *, num_experts: int) -> int:
        """All of them."""
        return num_experts

    @classmethod
    def weights_sum_to_one(cls, options: SoftOptions) -> bool:
        """A token's do, but experts work on mixtures: copies of one FFN do not give what the FFN gave."""
        return False

    def forward(self, tokens: Float[Tensor, "T D"], valid: Bool[Tensor, "batch seq"] | None = None) -> SlotRouting:
        """Mixtures for each row; ``logits`` of an expert are those of its slots together."""
        with torch.autocast(tokens.device.type, enabled=False):
            seen = F.normalize(tokens.float(), dim=-1)
            logits = seen @ (self.scale.float() * F.normalize(self.phi.float(), dim=0))
        batch = 1 if valid is None else len(valid)
        within = logits if valid is None else logits.masked_fill(~valid.reshape(-1, 1), torch.finfo(logits.dtype).min)
        into = within.unflatten(0, (batch, -1)).softmax(dim=1).flatten(0, 1)
        back = logits.softmax(dim=-1)
        by_expert = rearrange(back, "t (e p) -> t e p", e=self.num_experts).sum(dim=-1)
        weight, expert = best_first(by_expert, self.num_experts)
        return SlotRouting(
            expert=expert,
            weight=weight,
            logits=rearrange(logits, "t (e p) -> t e p", e=self.num_experts).logsumexp(dim=-1),
            probs=by_expert,
            into=into,
            back=back,
            batch=batch,
        )
