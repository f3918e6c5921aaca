"""Routers: which experts a token goes to, and with what weights. See ``routing.py`` for the letters."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.moe.routing import Routing
from polyvex.options import Options


class RouterOptions(Options):
    """Options that every router may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=RouterOptions, default=Any)
"""The class of a component's own options: ``class Mine(Router[MyOptions])``."""


class Router(nn.Module, ABC, Generic[OptionsT]):
    """Base of all routers. ``Options`` is the class of its options, ``summary`` one line for listings."""

    Options: ClassVar[type[RouterOptions]] = RouterOptions
    summary: ClassVar[str]

    def __init__(self, options: OptionsT, *, dim: int, num_experts: int):
        super().__init__()
        self.options = options
        self.num_experts = num_experts

    @classmethod
    @abstractmethod
    def check(cls, options: OptionsT, *, num_experts: int) -> None:
        """Refuse options that cannot work with this many experts.

        Raises:
            ValueError: says the numbers and a way out.
        """

    @classmethod
    @abstractmethod
    def experts_per_token(cls, options: OptionsT) -> int:
        """How many experts work on one token: what the count of active parameters needs."""

    @classmethod
    @abstractmethod
    def weights_sum_to_one(cls, options: OptionsT) -> bool:
        """Whether the weights of each token sum to one, so that copies of one FFN give what the FFN gave."""

    @classmethod
    def learns_from_answers(cls, options: OptionsT) -> bool:
        """Whether the answer loss reaches the router through its weights; if not, only auxiliary losses train it."""
        return True

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "T D"]) -> Routing:
        """Decide for each token."""


class TopKOptions(RouterOptions):
    """Options of the ``top_k`` router."""

    k: int = Field(default=2, ge=1, description="Experts per token.")
    renormalize: bool = Field(
        default=True,
        description="Scale the kept weights to sum to one (DeepSpeed's top-2, Mixtral); false keeps raw probabilities.",
    )
    init_std: float = Field(default=0.02, gt=0, description="Standard deviation of the router's first weights.")


class TopKRouter(Router[TopKOptions]):
    """Softmax over all experts in float32, keep the k largest; ties go to the lower index. Never drops a token.

    The form of MoE-LLaVA (arXiv 2401.15947, eq. 5–6); ``renormalize`` is what its code (DeepSpeed 0.9.5, top-2)
    and Mixtral do, the printed equation keeps raw probabilities. No noise, in training or after.
    """

    Options = TopKOptions
    summary = "the k most probable experts per token; dropless, no noise"

    def __init__(self, options: TopKOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.check(options, num_experts=num_experts)
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight, std=options.init_std)

    @classmethod
    def check(cls, options: TopKOptions, *, num_experts: int) -> None:
        """k must not exceed the number of experts."""
        if options.k > num_experts:
            raise ValueError(
                f"router k is {options.k}, but there are only {num_experts} experts. Lower k or add experts"
            )

    @classmethod
    def experts_per_token(cls, options: TopKOptions) -> int:
        """It is k."""
        return options.k

    @classmethod
    def weights_sum_to_one(cls, options: TopKOptions) -> bool:
        """Only when renormalised."""
        return options.renormalize

    @classmethod
    def learns_from_answers(cls, options: TopKOptions) -> bool:
        """Not with one expert, renormalised: its weight is always 1, whatever the router says."""
        return not (options.k == 1 and options.renormalize)

    def forward(self, tokens: Float[Tensor, "T D"]) -> Routing:
        """Decide for each token; float32 whatever the model's precision."""
        logits = tokens.float() @ self.weight.float().T
        probs = logits.softmax(dim=-1)
        # A stable sort: topk leaves it open which of two equal experts it takes.
        weight, expert = (best[:, : self.options.k] for best in probs.sort(dim=-1, descending=True, stable=True))
        if self.options.renormalize:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        return Routing(expert=expert, weight=weight, logits=logits, probs=probs)
