"""What a router is. See ``routing.py`` for the letters."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import TypeVar

from polyvex.moe.routing import Routing
from polyvex.options import Options


class RouterOptions(Options):
    """Options that every router may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=RouterOptions, default=Any)
"""The class of a component's own options: ``class Mine(Router[MyOptions])``."""


class Router(nn.Module, ABC, Generic[OptionsT]):
    """Base of all routers. ``Options`` is the class of its options, ``summary`` one line for listings.

    ``causal`` tells that a token's experts do not depend on later tokens or on other texts of the batch, as long as no
    expert is full; a language model takes other routers only if the recipe says so. ``groups`` tells that
    :meth:`group` does something.
    """

    Options: ClassVar[type[RouterOptions]] = RouterOptions
    summary: ClassVar[str]
    causal: ClassVar[bool] = True
    groups: ClassVar[bool] = False

    def __init__(self, options: OptionsT, *, dim: int, num_experts: int):
        super().__init__()
        self.options = options
        self.num_experts = num_experts

    def group(self, size: int) -> None:
        """Score experts alike, at the start, in groups of ``size`` neighbours: they are parts of one network."""
        return

    @classmethod
    @abstractmethod
    def check(cls, options: OptionsT, *, num_experts: int) -> None:
        """Refuse options that cannot work with this many experts.

        Raises:
            ValueError: says the numbers and a way out.
        """

    @classmethod
    @abstractmethod
    def experts_per_token(cls, options: OptionsT, *, num_experts: int) -> int:
        """How many of ``num_experts`` work on one token, on average if need be; active parameters are counted by it."""

    @classmethod
    @abstractmethod
    def weights_sum_to_one(cls, options: OptionsT) -> bool:
        """Whether the weights of each token sum to one, so that copies of one FFN give what the FFN gave."""

    @classmethod
    def learns_from_answers(cls, options: OptionsT) -> bool:
        """Whether the answer loss reaches the router through its weights; if not, only auxiliary losses train it."""
        return True

    @classmethod
    def estimates_load(cls, options: OptionsT, *, num_experts: int) -> bool:
        """Whether its routings have a ``soft_load`` while it trains, so that the ``load`` loss teaches something."""
        return False

    @classmethod
    def may_drop(cls, options: OptionsT) -> bool:
        """Whether tokens can be left without any expert while it trains."""
        return False

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "T D"], valid: Bool[Tensor, "batch seq"] | None = None) -> Routing:
        """Decide for each token.

        Args:
            valid: false on padding, for routers that compare tokens; T is batch · seq, row after row. None says that
                all tokens are real, and of one row.
        """


def logits_of(tokens: Float[Tensor, "T D"], weight: Float[Tensor, "E D"]) -> Float[Tensor, "T E"]:
    """The router's scores, in float32 whatever the model's precision, under autocast too."""
    if not torch.is_autocast_enabled(tokens.device.type):  # leaving it costs as much as a small product
        return tokens.float() @ weight.float().T
    with torch.autocast(tokens.device.type, enabled=False):
        return tokens.float() @ weight.float().T


def best_first(values: Float[Tensor, "T E"], k: int) -> tuple[Float[Tensor, "T k"], Tensor]:
    """The k largest of each row and their places; of equal ones the lower place, which ``topk`` leaves open."""
    found = values.sort(dim=-1, descending=True, stable=True)
    return found.values[:, :k], found.indices[:, :k]


def check_k(k: int, num_experts: int) -> None:
    """k must not exceed the number of experts."""
    if k > num_experts:
        raise ValueError(f"router k is {k}, but there are only {num_experts} experts. Lower k or add experts")
