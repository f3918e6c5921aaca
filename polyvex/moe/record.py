"""Read the routers' decisions while a forward runs, without keeping state on any module."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from polyvex.moe.routers import Router
from polyvex.moe.routing import Routing


@contextmanager
def record_routing(module: nn.Module) -> Iterator[list[Routing]]:
    """Collect the routing of each router inside ``module``, in the order in which layers run.

    Hooks are put on for the length of the block and always taken off. What checkpointing computes again in the
    backward pass comes after the block, so nothing is counted twice.
    """
    found: list[Routing] = []

    def keep(_module: nn.Module, _args: tuple[Tensor, ...], routing: Routing) -> None:
        found.append(routing)

    handles = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, Router)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
