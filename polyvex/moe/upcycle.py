"""Upcycling: feed-forward networks of a dense language model become experts that start as copies.

Sparse upcycling (arXiv 2212.05055) in the form of MoE-LLaVA (arXiv 2401.15947): every expert is a copy of the
trained FFN, only the router is new. ``start.py`` has the other ways to begin.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from polyvex.adapters import PartialLoRA, merged
from polyvex.context import TokenContext
from polyvex.errors import RecipeError
from polyvex.moe.dense import DenseFFN, halve, read_ffn, says_the_same
from polyvex.moe.experts import GatedExperts, PlainExperts
from polyvex.moe.interface import PREFIX, interface
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
        RecipeError: if a layer has no FFN that experts can be made of (:func:`~polyvex.moe.dense.read_ffn`).
    """
    layers = _decoder_layers(lm)
    installed = []
    chosen = chosen_layers(options.layers, len(layers))
    for index, count in zip(chosen, options.of_layers(chosen), strict=True):
        module = getattr(layers[index], "mlp", None)
        try:
            if not isinstance(module, nn.Module):
                raise ValueError(f"{type(layers[index]).__name__} has no network called mlp")
            if any(isinstance(part, PartialLoRA) for part in module.modules()):
                raise ValueError("it has Partial LoRA. Name only layers of attention in lm.partial_lora.targets")
            module = merged(module)  # what adapters learned goes on in the experts
            dense = read_ffn(module)
            if copy and not says_the_same(module, dense):
                raise ValueError(
                    f"{type(module).__name__} computes more than its weights tell, which experts would lose"
                )
        except ValueError as error:
            raise RecipeError([f"[moe]: layer {index} cannot become experts: {error}"]) from None
        made = _moe_from(dense, options, router, count=count, copy=copy, context=context, beside=module)
        layers[index].mlp = made.train(module.training)
        installed.append(f"layers.{index}.mlp")
    return installed


def _moe_from(
    dense: DenseFFN,
    options: MoEOptions,
    router: tuple[type[Router], RouterOptions],
    *,
    count: int,
    copy: bool,
    context: TokenContext | None,
    beside: nn.Module,
) -> MoEFeedForward:
    """The layer; ``beside`` is the network that the experts are made of, which stays if the options say so."""
    if dense.inner % options.granularity:
        problem = f"granularity {options.granularity} does not divide the FFN's width of {dense.inner}"
        raise RecipeError([f"[moe]: {problem}"])
    if options.backend.startswith(PREFIX):
        interface(options.backend)  # so that an unknown one is told here
    kind, router_options = router
    with torch.device(dense.down.device):
        experts = (GatedExperts if dense.gated else PlainExperts)(
            num_experts=count,
            dim=dense.dim,
            hidden=dense.inner // options.granularity,
            act=dense.act,
            backend=options.backend,
        )
        chooser = kind(router_options, dim=dense.dim, num_experts=count)
        weigh = nn.Linear(dense.dim, 2) if options.beside == "residual" else None
    experts.to(dense.down.dtype)
    if copy:
        start_experts(experts, dense, options)
        chooser.group(options.granularity)
    if copy and options.beside == "shared":  # both say all of it, so each says half
        halve(*experts.second)
        halve(dense.down, dense.down_bias)
    return MoEFeedForward(
        router=chooser,
        experts=experts,
        context=context,
        beside=None if options.beside == "none" else beside,
        weigh=weigh and weigh.to(dense.down.dtype),
    )


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
