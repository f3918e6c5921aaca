"""What experts start as: copies of a trained feed-forward network, copies with a part forgotten, or shares of it."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyvex.moe.dense import DenseFFN
from polyvex.moe.experts import Experts

if TYPE_CHECKING:
    from polyvex.moe.options import MoEOptions


@torch.no_grad()
def start_experts(experts: Experts, dense: DenseFFN, options: "MoEOptions") -> None:
    """Give experts the weights of a dense FFN.

    With a ``granularity`` of G the FFN is cut into G networks of an Gth of its inner width, and each is an expert by
    itself; experts 0 to G - 1 are the parts of the first copy, and so on. Their outputs are G times as large, so that G
    of them, which share out a weight of one, add up to the FFN (after arXiv 2410.07524, whose scale is for another
    activation). With ``start = "drop"`` each expert forgets a part of its inner neurons (:func:`forget`).
    """
    parts = options.granularity
    copies = experts.num_experts // parts
    (up, up_bias), (down, down_bias) = experts.first, experts.second
    up.copy_(_cut(dense.up, parts, gated=dense.gated).repeat(copies, 1, 1))
    down.copy_((dense.down.unflatten(1, (parts, -1)).movedim(1, 0) * parts).repeat(copies, 1, 1))
    if up_bias is not None and dense.up_bias is not None:
        up_bias.copy_(_cut(dense.up_bias, parts, gated=dense.gated).repeat(copies, 1))
    if down_bias is not None and dense.down_bias is not None:
        down_bias.copy_(dense.down_bias.expand_as(down_bias))  # weights of the parts sum to one, so whole for each
    if options.start == "drop":
        for index in range(experts.num_experts):
            forget(experts, index, options.forgotten)


def _cut(values: Tensor, parts: int, *, gated: bool) -> Tensor:
    """Rows of the first layer, [parts, rows of a part, …]; each part has its rows of the gate above the rest."""
    halves = values.unflatten(0, (2 if gated else 1, parts, -1))
    return halves.transpose(0, 1).flatten(1, 2)


def forget(experts: Experts, index: int, share: float) -> None:
    """Make a share of an expert's inner neurons anew: which ones is random, and differs between experts.

    Their rows of the first layer (of the gate too), and their columns of the second, are drawn from normal
    distributions of the mean and deviation that the replaced weights had (Drop-Upcycling, arXiv 2502.19261, §3).
    Biases are kept.
    """
    inner = experts.inner
    (up, _), (down, _) = experts.first, experts.second
    chosen = torch.randperm(inner)[: round(share * inner)].to(down.device)
    for rows in (chosen, chosen + inner) if experts.gated else (chosen,):
        up[index, rows] = _like(up[index, rows])
    down[index][:, chosen] = _like(down[index][:, chosen])


def _like(weights: Tensor) -> Tensor:
    """Random weights of the same mean and deviation."""
    return torch.randn_like(weights) * weights.std() + weights.mean()
