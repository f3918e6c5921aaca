"""Auxiliary losses of routers: pure functions of one layer's routing, without their weights in the total."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch import distributed as dist

from polyvex.moe.routing import Routing

Layers = Literal["sum", "pooled"]
"""How the load-balancing losses of several layers become one."""

Counted = Literal["first", "all"]
"""Which choices count for the load-balancing loss: each token's first, or all that it asks for."""


def load_balance(routing: Routing, share: Float[Tensor, " E"] | None = None) -> Float[Tensor, ""]:
    """E · Σ_e F_e · G_e, with F_e the share of choices that go to e and G_e its mean probability.

    MoE-LLaVA (arXiv 2401.15947, eq. 8), the same as Switch (arXiv 2101.03961, eq. 4–6): 1 at perfect balance, E
    when all go to one expert. Gradients flow through G only.

    Args:
        share: F, where it is of more tokens than these; by first choices of these if not given.
    """
    tokens, experts = routing.probs.shape
    if tokens == 0:
        return routing.probs.sum() * 0.0
    if share is None:
        share = shares(asked(routing, "first"))
    return experts * (share * routing.probs.mean(dim=0)).sum()


def router_z(routing: Routing) -> Float[Tensor, ""]:
    """Mean over tokens of logsumexp(logits)², which keeps router logits small (ST-MoE, arXiv 2202.08906, eq. 5)."""
    if routing.logits.shape[0] == 0:
        return routing.logits.sum() * 0.0
    return routing.logits.logsumexp(dim=-1).square().mean()


def importance(routing: Routing) -> Float[Tensor, ""]:
    """CV² of the experts' summed weights: 0 if all matter alike (Shazeer et al., arXiv 1701.06538, eq. 6–7)."""
    return squared_variation(routing.gates().sum(dim=0))


def load(routing: Routing) -> Float[Tensor, ""]:
    """CV² of the experts' loads (arXiv 1701.06538, eq. 10–11): estimated ones, which have a gradient, where there are.

    Counts stand for them where a router estimates none, or has no noise at the moment; those teach nothing.
    """
    return squared_variation(routing.counts() if routing.soft_load is None else routing.soft_load.sum(dim=0))


def squared_variation(values: Float[Tensor, " E"]) -> Float[Tensor, ""]:
    """Variance (of all E, not of a sample of more) over squared mean; zero if all are zero."""
    mean = values.mean()
    return (values - mean).square().mean() / mean.square().clamp(min=torch.finfo(values.dtype).tiny)


def asked(routing: Routing, counted: Counted) -> Float[Tensor, " E"]:
    """How many choices ask for each expert, whether it has room or not."""
    chosen = routing.expert[:, :1] if counted == "first" else routing.expert
    return torch.bincount(chosen.reshape(-1), minlength=routing.num_experts).to(routing.probs.dtype)


def shares(counts: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
    """Counts as shares of their sum."""
    return counts / counts.sum().clamp(min=1)


BY_LAYER = {"router_z": router_z, "importance": importance, "load": load}
"""Losses that look at the tokens of one process alone; ``load_balance`` may count those of all."""


def auxiliary_losses(
    routings: Sequence[Routing],
    valid: Bool[Tensor, "batch seq"],
    *,
    counted: Counted = "first",
    layers: Layers = "sum",
    together: bool = False,
) -> dict[str, Tensor]:
    """Each auxiliary loss, summed over the layers as MoE-LLaVA does; padding (``valid`` false) is left out.

    If an expert was full or did not choose a token, ``dropped`` tells the share of tokens that no expert worked on, as
    a mean over layers. It is no loss.

    Args:
        counted: which choices count for the load-balancing loss.
        layers: how the layers' load-balancing losses are put together.
        together: count them over all processes that train together (arXiv 2501.11873); all of them must come here.
    """
    kept = [routing.masked(valid.reshape(-1)) for routing in routings]
    if not kept:
        return {}
    counts = [asked(routing, counted) for routing in kept]
    if together and dist.is_available() and dist.is_initialized():
        everywhere = torch.cat(counts)
        dist.all_reduce(everywhere)
        counts = everywhere.split([len(one) for one in counts])
    found = {"load_balance": (_pooled if layers == "pooled" else _summed)(kept, counts)}
    for name, loss in BY_LAYER.items():
        found[name] = torch.stack([loss(routing) for routing in kept]).sum()
    if any(routing.kept is not None for routing in kept):
        found["dropped"] = torch.stack([routing.dropped() for routing in kept]).mean()
    return found


def _summed(routings: Sequence[Routing], counts: Sequence[Float[Tensor, " E"]]) -> Float[Tensor, ""]:
    """The sum of the layers' losses: L at perfect balance."""
    return torch.stack([load_balance(one, shares(each)) for one, each in zip(routings, counts, strict=True)]).sum()


def _pooled(routings: Sequence[Routing], counts: Sequence[Float[Tensor, " E"]]) -> Float[Tensor, ""]:
    """One loss of the tokens of all layers together: 1 at perfect balance.

    K times this is ``load_balancing_loss_func`` of transformers, which adds up the K choices; expert e of one layer
    then counts as the same expert as expert e of another.
    """
    fields = ("expert", "weight", "logits", "probs")
    whole = Routing(**{name: torch.cat([getattr(one, name) for one in routings]) for name in fields})
    return load_balance(whole, shares(torch.stack(list(counts)).sum(dim=0)))
