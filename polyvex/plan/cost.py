"""Parameters, memory and arithmetic of one stage, counted on a model without memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from polyvex.moe.record import routers
from polyvex.moe.routers import Router
from polyvex.recipe.schema import Stage
from polyvex.tokens import VisualTokens

FLOAT32 = 4

FFN_WIDTH = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
"""What language models call the inner width of their feed-forward networks; without any of them it is 4 widths."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage: parameters of connector, language model and encoders that learn, memory at float32, and arithmetic.

    ``active`` counts what works on one token. ``memory_bytes`` holds weights, gradients, AdamW's two moments and an
    estimate of activations. ``flops`` is of the whole stage: 2 per active parameter and token forward, as much
    again for gradients of activations, and as much for those of trained weights; attention's own products, which
    grow with the square of the length, are added, and so is encoding where tokens are not cached.
    """

    name: str
    steps: int
    total: int
    active: int
    trainable: int
    memory_bytes: int
    flops: int


def stage_cost(
    model: Any, stage: Stage, *, length: int, seeing: int = 0, joining: "Joining | None" = None
) -> StageCost:
    """The cost of ``stage`` for sequences of ``length`` tokens, with its parameters marked as trained already.

    Args:
        seeing: arithmetic of encoding a sample's images, by encoders whose tokens are not cached.
        joining: what reducers and fusion make of a sample's images; None in a stage without them.
    """
    total, trainable = count(model), count(model, trained=True)
    active = total - _idle(model)
    micro_batch = stage.batch_size // stage.accumulate
    memory = FLOAT32 * (total + 3 * trainable) + _activations(model, micro_batch * length)
    samples = stage.steps * stage.batch_size
    share = count(model.lm, trained=True) / count(model.lm)
    reading = active - total + count(model.lm)
    flops = int(samples * length * (2 * reading * (2 + share) + 3 * _attention(model, length)))
    encoding = count(model.encoders, trained=True) > 0
    flops += samples * (3 if encoding else 1) * seeing
    if joining is not None:
        learns = encoding or count(model.fusion, trained=True) + count(model.reducers, trained=True) > 0
        flops += samples * (3 if learns else 1) * joining.flops
        memory += micro_batch * joining.kept if learns else 0
    return StageCost(
        name=stage.name,
        steps=stage.steps,
        total=total,
        active=active,
        trainable=trainable,
        memory_bytes=memory,
        flops=flops,
    )


def count(module: nn.Module, *, trained: bool = False) -> int:
    """Numbers in a module's parameters, or in those that train."""
    return sum(one.numel() for one in module.parameters() if one.requires_grad or not trained)


@dataclass(frozen=True, kw_only=True)
class Joining:
    """What reducers and fusion cost for one image: FLOPs of a forward, and bytes kept for the backward pass."""

    flops: int
    kept: int


def joining_cost(model: Any, tiles: Sequence[int]) -> Joining:
    """Let tokens without memory go through reducers and fusion, and count what that takes.

    Args:
        model: on ``meta``, its connector too.
        tiles: how many pictures each encoder sees of an image.
    """
    flops = kept = 0
    for index, (name, shape) in enumerate(zip(model.encoder_names, model.input_shapes, strict=True)):
        if name in model.reducers:
            found = _measured(model.reducers[name], torch.empty(1, shape.tokens, shape.dim, device="meta"))
            flops, kept = flops + tiles[index] * found.flops, kept + tiles[index] * found.kept
    shapes = [
        model.reducers[name].shape if name in model.reducers else shape
        for name, shape in zip(model.encoder_names, model.input_shapes, strict=True)
    ]
    values = [torch.empty(1, shape.tokens, shape.dim, device="meta") for shape in shapes]
    if model.fusion.separate:
        found = [_measured(model.fusion.fuse_one, index, one) for index, one in enumerate(values)]
        flops += sum(one.flops * times for one, times in zip(found, tiles, strict=True))
        kept += sum(one.kept * times for one, times in zip(found, tiles, strict=True))
    else:
        parts = [VisualTokens.on_grid(one, shape.grid) for one, shape in zip(values, shapes, strict=True)]
        whole = _measured(model.fusion, parts)
        flops, kept = flops + tiles[0] * whole.flops, kept + tiles[0] * whole.kept
    return Joining(flops=flops, kept=kept)


def _measured(run: Callable[..., Any], *inputs: Any) -> Joining:
    """FLOPs of matrix products, and bytes that autograd keeps beside the parameters."""
    held: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        whole = value._base if value._is_view() and value._base is not None else value
        if not isinstance(whole, nn.Parameter):
            held[id(whole)] = whole
        return value

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    with torch.enable_grad(), FlopCounterMode(display=False) as counter, hooks:
        run(*inputs)
    kept = sum(one.numel() * one.element_size() for one in held.values())
    return Joining(flops=int(counter.get_total_flops()), kept=kept)


def _idle(model: Any) -> int:
    """Parameters of experts that do not work on a given token: of each layer's E experts, all but the working ones."""
    idle = 0
    for name, router in routers(model.lm).items():
        held = getattr(model.lm.get_submodule(name), "experts", None)
        experts = sum(weight.numel() for weight in held.parameters()) if held is not None else 0
        count: Any = router.num_experts
        idle += experts * (count - _working(router)) // count
    return idle


def _working(router: Any) -> int:
    return (
        router.experts_per_token(router.options, num_experts=router.num_experts)
        if isinstance(router, Router)
        else router.top_k
    )


def _attention(model: Any, length: int) -> int:
    """FLOPs per token of scores and weighted sums, causal: half of 4 · length · width, in each layer."""
    config = model.lm.config.get_text_config()
    return 2 * length * config.hidden_size * config.num_hidden_layers


def _activations(model: Any, tokens: int) -> int:
    """Bytes kept for the backward pass: about 16 widths and 3 FFN widths per token and layer, and the logits twice."""
    config = model.lm.config.get_text_config()
    ffn = next((getattr(config, name) for name in FFN_WIDTH if getattr(config, name, None)), 4 * config.hidden_size)
    widest = max(ffn) if isinstance(ffn, list | tuple) else ffn  # some have one for each layer
    per_layer = 16 * config.hidden_size + 3 * widest
    return FLOAT32 * tokens * (config.num_hidden_layers * per_layer + 2 * config.vocab_size)
