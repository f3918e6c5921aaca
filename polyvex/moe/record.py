"""Read the routers' decisions while a forward runs, without keeping state on any module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyvex.moe.routers import Router
from polyvex.moe.routing import Routing

OTHERS = {"Llama4Router"}
"""Routers of transformers that do not say logits, weights and experts."""


def routers(module: nn.Module) -> dict[str, nn.Module]:
    """The routers inside a model by the name of the layer that they route for, in order.

    Besides polyvex's own these are those of transformers' mixture-of-experts language models (Mixtral, OLMoE, Qwen,
    DeepSeek and others, 5.23): modules that are called routers and know how many experts each token takes.
    """
    return {name.rpartition(".")[0]: part for name, part in module.named_modules() if is_router(part)}


def is_router(module: nn.Module) -> bool:
    """Whether a module is a router whose decisions can be read."""
    if isinstance(module, Router):
        return True
    name = type(module).__name__
    known = name.endswith("Router") and name not in OTHERS
    return known and hasattr(module, "top_k") and hasattr(module, "num_experts")


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
    probs, scores = logits.softmax(dim=-1), _shares(logits.sigmoid())
    if hasattr(router, "e_score_correction_bias"):  # DeepSeek-V3 and its like
        probs = scores
    else:  # as the weights tell, without waiting for a device to say it
        probs = torch.where(_gap(scores, weight, expert) < _gap(probs, weight, expert), scores, probs)
    return Routing(expert=expert.gather(1, best), weight=weight.gather(1, best).float(), logits=logits, probs=probs)


@torch.no_grad()
def _gap(probs: Tensor, weight: Tensor, expert: Tensor) -> Tensor:
    """How far the weights of the chosen experts are from being shares of these probabilities; 0 if one is chosen."""
    return (_shares(probs.gather(1, expert)) - _shares(weight.float())).abs().sum()


def _shares(values: Tensor) -> Tensor:
    return values / values.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
