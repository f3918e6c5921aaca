"""Soft MoE over the tokens of all encoders (arXiv 2308.00951): slots mix tokens, networks work on slots.

X are the projected tokens of all encoders, [T d]; Φ is learned, [d S], for S slots that F feed-forward networks share
out evenly:

    L = x̂ Φ̂, with x̂ = x / ‖x‖ along d and Φ̂ = scale · Φ / ‖Φ‖ along d
    D = softmax of L over tokens      slots   X̃ = Dᵀ X
    Ỹ_s = f_⌊s F / S⌋(X̃_s)
    C = softmax of L over slots       tokens  Y = C Ỹ

What comes out is Ỹ (as many tokens as slots, without a grid) or Y (the tokens of each encoder). Every slot sees every
token, which is no harm ahead of the language model. An encoder's weight is the share of D that its tokens have, in the
mean over slots. This is no plain projection with one encoder either: its tokens are mixed in any case.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.fusion.base import Fusion, FusionOptions
from polyvex.fusion.weights import EncoderWeights
from polyvex.tokens import TokenShape, VisualTokens


class SoftMoEOptions(FusionOptions):
    """Options of the ``soft_moe`` fusion."""

    networks: int = Field(default=4, ge=1, description="Feed-forward networks.")
    slots: int = Field(default=16, ge=1, description="Slots of each network: mixtures of tokens that it works on.")
    hidden: int | None = Field(
        default=None, ge=1, description="Inner width of the networks; the language model's if left out."
    )
    output: Literal["slots", "tokens"] = Field(
        default="slots",
        description="What comes out: the slots, or the encoders' tokens, mixed from what networks made of slots.",
    )


class SoftMoEFusion(Fusion[SoftMoEOptions]):
    """A linear layer per encoder, then slots, networks, and slots or tokens again."""

    Options = SoftMoEOptions
    summary = "slots mix the tokens of all encoders, feed-forward networks work on the slots (Soft MoE)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden", "tokens": "slots"})

    def __init__(self, options: SoftMoEOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.tokens = [shape.tokens for shape in inputs]
        inner = options.hidden or dim
        self.project = nn.ModuleList(nn.Linear(shape.dim, dim) for shape in inputs)
        self.phi = nn.Parameter(torch.randn(dim, options.networks * options.slots) / dim**0.5)
        self.scale = nn.Parameter(torch.ones(()))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim)) for _ in range(options.networks)
        )
        self.weigh = EncoderWeights()

    @classmethod
    def describe(cls, options: SoftMoEOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """One run of as many tokens as slots; or a run per encoder, with its tokens and grid as they came."""
        if options.output == "slots":
            return [TokenShape(tokens=options.networks * options.slots, dim=dim)]
        return [TokenShape(tokens=shape.tokens, dim=dim, grid=shape.grid) for shape in inputs]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Mix tokens to slots, let the networks work, and mix back if tokens are wanted."""
        values = torch.cat([layer(part.values) for layer, part in zip(self.project, parts, strict=True)], dim=1)
        logits = self._logits(values)
        dispatch = logits.softmax(dim=1)
        shares = [part.sum(dim=1).mean(dim=-1) for part in dispatch.split(self.tokens, dim=1)]
        self.weigh(torch.stack(shares, dim=-1))
        mixed = rearrange(dispatch.mT @ values, "images (n slots) dim -> n images slots dim", n=self.options.networks)
        worked = torch.cat([network(one) for network, one in zip(self.networks, mixed, strict=True)], dim=1)
        values = worked if self.options.output == "slots" else logits.softmax(dim=2) @ worked
        return VisualTokens(values=values, layout=self.layout)

    def _logits(self, values: Float[Tensor, "images tokens dim"]) -> Float[Tensor, "images tokens slots"]:
        """How well each token fits each slot, by direction alone."""
        return F.normalize(values, dim=-1) @ (self.scale * F.normalize(self.phi, dim=0))
