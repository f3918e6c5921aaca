"""What experts start as: copies of a trained feed-forward network, copies with a part forgotten, or shares of it."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyvex.moe.experts import GatedExperts

if TYPE_CHECKING:
    from polyvex.moe.options import MoEOptions


@torch.no_grad()
def start_experts(experts: GatedExperts, dense: Any, options: "MoEOptions") -> None:
    """Give experts the weights of a dense gated FFN.

    With a ``granularity`` of G the FFN is cut into G networks of an Gth of its inner width, and each is an expert by
    itself; experts 0 to G - 1 are the parts of the first copy, and so on. Their outputs are G times as large, so that G
    of them, which share out a weight of one, add up to the FFN (after arXiv 2410.07524, whose scale is for another
    activation). With ``start = "drop"`` each expert forgets a part of its inner neurons (:func:`forget`).
    """
    parts = options.granularity
    copies = len(experts.down_proj) // parts
    gate, up = (weight.unflatten(0, (parts, -1)) for weight in (dense.gate_proj.weight, dense.up_proj.weight))
    down = dense.down_proj.weight.unflatten(1, (parts, -1)).movedim(1, 0) * parts
    experts.gate_up_proj.copy_(torch.cat([gate, up], dim=1).repeat(copies, 1, 1))
    experts.down_proj.copy_(down.repeat(copies, 1, 1))
    if options.start == "drop":
        for index in range(len(experts.down_proj)):
            forget(experts, index, options.forgotten)


def forget(experts: GatedExperts, index: int, share: float) -> None:
    """Make a share of an expert's inner neurons anew: which ones is random, and differs between experts.

    Their rows of the gate and of the up matrix, and their columns of the down matrix, are drawn from normal
    distributions of the mean and deviation that the replaced weights had (Drop-Upcycling, arXiv 2502.19261, §3).
    """
    inner = experts.down_proj.shape[2]
    chosen = torch.randperm(inner)[: round(share * inner)].to(experts.down_proj.device)
    for rows in (chosen, chosen + inner):
        experts.gate_up_proj[index, rows] = _like(experts.gate_up_proj[index, rows])
    experts.down_proj[index][:, chosen] = _like(experts.down_proj[index][:, chosen])


def _like(weights: Tensor) -> Tensor:
    """Random weights of the same mean and deviation."""
    return torch.randn_like(weights) * weights.std() + weights.mean()
