"""Upcycling: feed-forward networks of a dense language model become experts that start as copies.

Sparse upcycling (arXiv 2212.05055) in the form of MoE-LLaVA (arXiv 2401.15947): every expert is a copy of the
trained FFN, only the router is new.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from polyvex.context import TokenContext
from polyvex.errors import RecipeError
from polyvex.moe.experts import Backend, GatedExperts
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.routers import Router, RouterOptions
from polyvex.options import Options

LayerChoice = Literal["first_half", "second_half", "sparse", "dense"]


class MoEOptions(Options):
    """What becomes a mixture of experts, and how. The router's own table is ``[moe.router]``."""

    num_experts: int = Field(default=4, ge=2, description="Experts per layer.")
    layers: LayerChoice | list[int] = Field(
        default="sparse",
        description="Which layers: first_half, second_half, sparse (0, 2, 4, …), dense (all), or a list of indices.",
    )
    non_causal: bool = Field(
        default=False,
        description="Take a router that lets the language model see later tokens while it trains: expert_choice or "
        "soft. When it writes, there are none.",
    )
    backend: Backend = Field(default="auto", description="How experts are computed: auto, loop, or grouped_mm.")


def chosen_layers(choice: LayerChoice | list[int], count: int) -> list[int]:
    """Indices of the layers that become sparse, of ``count`` in all; names as in MoE-LLaVA's code.

    Raises:
        ValueError: if a listed index is out of range, or listed twice.
    """
    named = {
        "first_half": range(count // 2),
        "second_half": range(count // 2, count),
        "sparse": range(0, count, 2),
        "dense": range(count),
    }
    if isinstance(choice, str):
        return list(named[choice])
    if not choice:
        raise ValueError("moe layers is empty, so no layer would become sparse. Name layers, or leave [moe] out")
    if bad := [index for index in choice if not 0 <= index < count]:
        raise ValueError(f"moe layers {bad} are out of range: the language model has layers 0 to {count - 1}")
    if len(set(choice)) != len(choice):
        raise ValueError(f"moe layers {choice} name a layer twice")
    return sorted(choice)


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
    for index in chosen_layers(options.layers, len(layers)):
        dense = layers[index].mlp
        if not isinstance(dense, nn.Module) or (problem := _not_gated(dense)):
            raise RecipeError([f"[moe]: layer {index} cannot become experts: {problem}"])  # type: ignore[possibly-undefined]
        layers[index].mlp = _moe_from(dense, options, router, copy=copy, context=context)
        installed.append(f"layers.{index}.mlp")
    return installed


def _moe_from(
    dense: Any,
    options: MoEOptions,
    router: tuple[type[Router], RouterOptions],
    *,
    copy: bool,
    context: TokenContext | None,
) -> MoEFeedForward:
    weight: Tensor = dense.gate_proj.weight
    hidden, dim = weight.shape
    kind, router_options = router
    with torch.device(weight.device):
        experts = GatedExperts(
            num_experts=options.num_experts, dim=dim, hidden=hidden, act=dense.act_fn, backend=options.backend
        )
        chooser = kind(router_options, dim=dim, num_experts=options.num_experts)
    experts.to(weight.dtype)
    if copy:
        with torch.no_grad():
            experts.gate_up_proj.copy_(
                torch.cat([dense.gate_proj.weight, dense.up_proj.weight]).expand_as(experts.gate_up_proj)
            )
            experts.down_proj.copy_(dense.down_proj.weight.expand_as(experts.down_proj))
    return MoEFeedForward(router=chooser, experts=experts, context=context).train(dense.training)


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
