"""Auxiliary losses of routers: pure functions of one layer's routing, without their weights in the total."""

import torch
from jaxtyping import Float
from torch import Tensor

from polyvex.moe.routing import Routing


def load_balance(routing: Routing) -> Float[Tensor, ""]:
    """E · Σ_e F_e · G_e, with F_e the share of tokens whose first choice is e and G_e its mean probability.

    MoE-LLaVA (arXiv 2401.15947, eq. 8), the same as Switch (arXiv 2101.03961, eq. 4–6): 1 at perfect balance, E
    when all go to one expert. Gradients flow through G only.
    """
    tokens, experts = routing.probs.shape
    if tokens == 0:
        return routing.probs.sum() * 0.0
    first = torch.bincount(routing.expert[:, 0], minlength=experts).to(routing.probs.dtype) / tokens
    return experts * (first * routing.probs.mean(dim=0)).sum()


def router_z(routing: Routing) -> Float[Tensor, ""]:
    """Mean over tokens of logsumexp(logits)², which keeps router logits small (ST-MoE, arXiv 2202.08906, eq. 5)."""
    if routing.logits.shape[0] == 0:
        return routing.logits.sum() * 0.0
    return routing.logits.logsumexp(dim=-1).square().mean()


LOSSES = {"load_balance": load_balance, "router_z": router_z}


def auxiliary_losses(routings: list[Routing], valid: Tensor) -> dict[str, Tensor]:
    """Each auxiliary loss, summed over the layers as MoE-LLaVA does; padding (``valid`` false) is left out."""
    kept = [routing.masked(valid.reshape(-1)) for routing in routings]
    return (
        {name: torch.stack([loss(routing) for routing in kept]).sum() for name, loss in LOSSES.items()} if kept else {}
    )
