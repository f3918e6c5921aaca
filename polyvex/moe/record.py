"""Read the routers' decisions while a forward runs, without keeping state on any module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from polyvex.moe.families import RANKED, is_known, probabilities, why_unread
from polyvex.moe.routers import Router
from polyvex.moe.routing import Routing


def routers(module: nn.Module) -> dict[str, nn.Module]:
    """The routers inside a model by the name of the layer that they route for, in order.

    Besides polyvex's own these are the routers of transformers' mixture-of-experts language models that
    :mod:`polyvex.moe.families` lists.
    """
    return {name.rpartition(".")[0]: part for name, part in module.named_modules() if is_router(part)}


def unread_routers(module: nn.Module) -> list[str]:
    """Routers of transformers inside a model whose decisions cannot be read: their classes, each with the reason."""
    found = (why_unread(part) for part in module.modules() if not isinstance(part, Router))
    return list(dict.fromkeys(reason for reason in found if reason))


def is_router(module: nn.Module) -> bool:
    """Whether a module is a router whose decisions can be read."""
    return isinstance(module, Router) or is_known(module)


@contextmanager
def record_routing(module: nn.Module) -> Iterator[list[Routing]]:
    """Collect the routing of each router inside ``module``, in the order in which layers run.

    Hooks are put on for the length of the block and always taken off. What checkpointing computes again in the
    backward pass comes after the block, so nothing is counted twice.
    """
    found: list[Routing] = []

    def keep(router: nn.Module, _args: tuple[Tensor, ...], said: Any) -> None:
        found.append(said if isinstance(said, Routing) else _read(router, *said[:3]))

    handles = [router.register_forward_hook(keep) for router in routers(module).values()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _read(router: nn.Module, logits: Tensor, weight: Tensor, expert: Tensor) -> Routing:
    """The output of a router of transformers: logits [T E], weights [T K] and experts [T K]."""
    logits = logits.reshape(-1, logits.shape[-1]).float()
    if type(router).__name__ not in RANKED:
        best = weight.argsort(dim=-1, descending=True, stable=True)
        expert, weight = expert.gather(1, best), weight.gather(1, best)
    return Routing(expert=expert, weight=weight.float(), logits=logits, probs=probabilities(router, logits))
