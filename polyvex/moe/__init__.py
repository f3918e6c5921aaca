"""The mixture-of-experts feed-forward layer: router, experts, losses, upcycling."""

from collections.abc import Mapping

from polyvex.hooks import hookimpl
from polyvex.moe.routers import (
    ExpertChoiceRouter,
    NoisyTopKRouter,
    Router,
    RouterOptions,
    SoftRouter,
    SwitchRouter,
    TopKRouter,
)
from polyvex.moe.routing import Routing

__all__ = ["Router", "RouterOptions", "Routing", "TopKRouter", "register_routers"]


@hookimpl
def register_routers() -> Mapping[str, type[Router]]:
    """The routers of the core."""
    return {
        "top_k": TopKRouter,
        "noisy_top_k": NoisyTopKRouter,
        "switch": SwitchRouter,
        "expert_choice": ExpertChoiceRouter,
        "soft": SoftRouter,
    }
