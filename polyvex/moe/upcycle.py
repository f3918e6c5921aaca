"""Upcycling: feed-forward networks of a dense language model become experts that start as copies.

Sparse upcycling (arXiv 2212.05055) in the form of MoE-LLaVA (arXiv 2401.15947): every expert is a copy of the
trained FFN, only the router is new. ``start.py`` has the other ways to begin.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from polyvex.context import TokenContext
from polyvex.errors import RecipeError
from polyvex.moe.experts import GatedExperts
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.options import MoEOptions, chosen_layers
from polyvex.moe.routers import Router, RouterOptions
from polyvex.moe.start import start_experts


def install_experts(
    lm: nn.Module,
    options: MoEOptions,
    router: tuple[type[Router], RouterOptions],
    *,
    copy: bool,
    context: TokenContext | None,
) -> list[str]:
    """Put MoE layers in place of the chosen FFNs of a causal language model; return the names of those layers.

    Args:
        copy: true copies the FFN into each expert; false leaves fresh weights, for a checkpoint to fill.
        context: where layers read which tokens are padding; the one that their model tells it to.

    Raises:
        RecipeError: if a layer has no gated FFN (``gate_proj``, ``up_proj``, ``down_proj`` without bias).
    """
    layers = _decoder_layers(lm)
    installed = []
    chosen = chosen_layers(options.layers, len(layers))
    for index, count in zip(chosen, options.of_layers(chosen), strict=True):
        dense = layers[index].mlp
        if not isinstance(dense, nn.Module) or (problem := _not_gated(dense)):
            raise RecipeError([f"[moe]: layer {index} cannot become experts: {problem}"])  # type: ignore[possibly-undefined]
        layers[index].mlp = _moe_from(dense, options, router, count=count, copy=copy, context=context)
        installed.append(f"layers.{index}.mlp")
    return installed


def _moe_from(
    dense: Any,
    options: MoEOptions,
    router: tuple[type[Router], RouterOptions],
    *,
    count: int,
    copy: bool,
    context: TokenContext | None,
) -> MoEFeedForward:
    weight: Tensor = dense.gate_proj.weight
    hidden, dim = weight.shape
    if hidden % options.granularity:
        raise RecipeError([f"[moe]: granularity {options.granularity} does not divide the FFN's width of {hidden}"])
    kind, router_options = router
    with torch.device(weight.device):
        experts = GatedExperts(
            num_experts=count,
            dim=dim,
            hidden=hidden // options.granularity,
            act=dense.act_fn,
            backend=options.backend,
        )
        chooser = kind(router_options, dim=dim, num_experts=count)
        weigh = nn.Linear(dim, 2) if options.beside == "residual" else None
    experts.to(weight.dtype)
    if copy:
        start_experts(experts, dense, options)
        chooser.group(options.granularity)
    beside = None if options.beside == "none" else dense
    if copy and options.beside == "shared":
        with torch.no_grad():  # both say all of it, so each says half
            experts.down_proj.mul_(0.5)
            dense.down_proj.weight.mul_(0.5)
    made = MoEFeedForward(
        router=chooser, experts=experts, context=context, beside=beside, weigh=weigh and weigh.to(weight.dtype)
    )
    return made.train(dense.training)


def begins_unlike(options: MoEOptions, router: tuple[type[Router], RouterOptions]) -> str:
    """Why the model says something else right after upcycling than before; empty if it says the same."""
    kind, router_options = router
    if options.start == "drop":
        return f"experts forget {options.forgotten:.0%} of what they are copied from"
    if not kind.weights_sum_to_one(router_options):
        return "the router's weights do not sum to one"
    if options.granularity > 1:
        k = kind.experts_per_token(router_options, num_experts=options.counts[0])
        if not kind.groups:
            return f"the router does not choose the {options.granularity} parts of a network together"
        if k % options.granularity:
            return f"{k} experts per token are no multiple of the {options.granularity} parts of a network"
    return ""


def _not_gated(dense: nn.Module) -> str:
    """Why a module is not a gated FFN without biases; empty if it is one."""
    missing = [name for name in ("gate_proj", "up_proj", "down_proj", "act_fn") if not hasattr(dense, name)]
    if missing:
        return f"{type(dense).__name__} has no {', '.join(missing)}; only gated FFNs as Llama's can be upcycled"
    biased = [name for name in ("gate_proj", "up_proj", "down_proj") if getattr(dense, name).bias is not None]
    return f"{type(dense).__name__} has biases in {', '.join(biased)}; experts have none" if biased else ""


def _decoder_layers(lm: nn.Module) -> Any:
    layers = getattr(getattr(lm, "model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise RecipeError(
            [f"[moe]: {type(lm).__name__} keeps no list of layers at model.layers, so it cannot be upcycled"]
        )
    return layers


def moe_layers(lm: nn.Module) -> Iterator[tuple[str, MoEFeedForward]]:
    """The MoE layers of a model with their names, in order."""
    for name, module in lm.named_modules():
        if isinstance(module, MoEFeedForward):
            yield name, module
