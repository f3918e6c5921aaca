"""Read the routers' decisions while a forward runs, without keeping state on any module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyvex.moe.routers import Router
from polyvex.moe.routing import Routing


def routers(module: nn.Module) -> dict[str, nn.Module]:
    """The routers inside a model by the name of the layer that they route for, in order.

    Besides polyvex's own these are those of transformers' mixture-of-experts language models (Mixtral, OLMoE, Qwen,
    DeepSeek and others, 5.23): modules that are called routers and know how many experts each token takes.
    """
    found = {name: part for name, part in module.named_modules() if isinstance(part, Router) or _of_transformers(part)}
    return {name.rpartition(".")[0]: part for name, part in found.items()}


def _of_transformers(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Router") and hasattr(module, "top_k") and hasattr(module, "num_experts")


@contextmanager
def record_routing(module: nn.Module) -> Iterator[list[Routing]]:
    """Collect the routing of each router inside ``module``, in the order in which layers run.

    Hooks are put on for the length of the block and always taken off. What checkpointing computes again in the
    backward pass comes after the block, so nothing is counted twice.
    """
    found: list[Routing] = []

    def keep(router: nn.Module, _args: tuple[Tensor, ...], said: Any) -> None:
        found.append(said if isinstance(said, Routing) else _read(router, *said))

    handles = [router.register_forward_hook(keep) for router in routers(module).values()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _read(router: nn.Module, logits: Tensor, weight: Tensor, expert: Tensor) -> Routing:
    """What a router of transformers says: logits [T E], weights [T K] and experts [T K], in any order of K."""
    logits = logits.reshape(-1, logits.shape[-1]).float()
    best = weight.argsort(dim=-1, descending=True, stable=True)
    if hasattr(router, "e_score_correction_bias"):  # DeepSeek-V3 and its like score by sigmoids
        scores = logits.sigmoid()
        probs = scores / scores.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    else:
        probs = logits.softmax(dim=-1)
    return Routing(expert=expert.gather(1, best), weight=weight.gather(1, best).float(), logits=logits, probs=probs)
