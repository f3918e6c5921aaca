"""Parameters, memory and arithmetic of one stage, counted on a model without memory."""

from dataclasses import dataclass
from typing import Any

from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.upcycle import moe_layers
from polyvex.recipe.schema import Stage

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


def stage_cost(model: Any, stage: Stage, *, length: int, seeing: int = 0) -> StageCost:
    """The cost of ``stage`` for sequences of ``length`` tokens, with its parameters marked as trained already.

    Args:
        seeing: arithmetic of encoding a sample's images, by encoders whose tokens are not cached.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    idle = sum(_idle(layer) for _, layer in moe_layers(model))
    encoders = list(model.encoders.parameters())
    seen = sum(parameter.numel() for parameter in encoders)
    active = total - idle
    reading = active - seen
    passes = 3 if any(parameter.requires_grad for parameter in encoders) else 1
    micro_batch = stage.batch_size // stage.accumulate
    memory = FLOAT32 * (total + 3 * trainable) + _activations(model, micro_batch * length)
    tokens = stage.steps * stage.batch_size * length
    share = (trainable - sum(one.numel() for one in encoders if one.requires_grad)) / (total - seen)
    flops = int(tokens * (2 * reading * (2 + share) + 3 * _attention(model, length)))
    flops += stage.steps * stage.batch_size * passes * seeing
    return StageCost(
        name=stage.name,
        steps=stage.steps,
        total=total,
        active=active,
        trainable=trainable,
        memory_bytes=memory,
        flops=flops,
    )


def _idle(layer: MoEFeedForward) -> int:
    """Parameters of a layer's experts that do not work on a given token."""
    experts = layer.router.num_experts
    working = layer.router.experts_per_token(layer.router.options, num_experts=experts)
    return sum(parameter.numel() for parameter in layer.experts.parameters()) * (experts - working) // experts


def _attention(model: Any, length: int) -> int:
    """FLOPs per token of scores and weighted sums, causal: half of 4 · length · width, in each layer."""
    config = model.lm.config.get_text_config()
    return 2 * length * config.hidden_size * config.num_hidden_layers


def _activations(model: Any, tokens: int) -> int:
    """Bytes kept for the backward pass: about 16 widths and 3 FFN widths per token and layer, and the logits twice."""
    config = model.lm.config.get_text_config()
    ffn = next((getattr(config, name) for name in FFN_WIDTH if getattr(config, name, None)), 4 * config.hidden_size)
    per_layer = 16 * config.hidden_size + 3 * ffn
    return FLOAT32 * tokens * (config.num_hidden_layers * per_layer + 2 * config.vocab_size)
