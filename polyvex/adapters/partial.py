"""Partial LoRA: a low-rank update that acts on visual tokens alone (InternLM-XComposer2, arXiv 2401.16420)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.context import TokenContext
from polyvex.errors import ContractError
from polyvex.options import Options

PARTIAL = "plora_"
"""How the weights of Partial LoRA are called."""


class PartialLoRATable(Options):
    """``partial_lora`` of ``[lm]``: low-rank updates of the language model's layers that act on visual tokens alone."""

    rank: int = Field(default=256, ge=1, description="Rank of the update of each adapted layer (XComposer2: 256).")
    alpha: float = Field(default=256.0, gt=0, description="The update is scaled by alpha / rank (XComposer2: 1).")
    dropout: float = Field(
        default=0.05, ge=0, lt=1, description="Share of what the update reads that is dropped while training."
    )
    targets: list[str] = Field(
        default=[],
        description="Linear layers of the language model's blocks to adapt, by name or its last parts, such as q_proj; "
        "empty for all.",
    )
    per_encoder: bool = Field(
        default=False, description="An update of its own for each encoder's tokens; false shares one among all."
    )


class PartialLoRA(nn.Module):
    """A linear layer whose update only visual tokens see: y = W x + b, and for them + α/r · B A x (Figure 2).

    ``plora_A`` is [sources, rank, inputs] and ``plora_B`` [sources, outputs, rank]; B starts at zero, so that nothing
    changes at first. With one source all encoders' tokens share it, else source i serves those of encoder i. Which
    tokens are whose is read from ``context``; outside a model's forward nobody's are.

    Weights that no token reached get gradients of zero, so processes that train together stay in step on text alone.
    """

    def __init__(self, base_layer: nn.Module, options: PartialLoRATable, *, sources: int, context: TokenContext):
        super().__init__()
        inputs, outputs = int(base_layer.in_features), int(base_layer.out_features)  # type: ignore[arg-type]
        weight: Tensor = base_layer.weight  # type: ignore[assignment]
        made = {"device": weight.device, "dtype": weight.dtype}
        self.base_layer = base_layer
        self.context = context
        self.scale = options.alpha / options.rank
        self.dropout = nn.Dropout(options.dropout)
        self.plora_A = nn.Parameter(torch.empty(sources, options.rank, inputs, **made))
        self.plora_B = nn.Parameter(torch.zeros(sources, outputs, options.rank, **made))
        for source in range(sources):  # each as a linear layer of its own would start
            nn.init.kaiming_uniform_(self.plora_A[source], a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """The adapted layer's own weight."""
        return self.base_layer.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The adapted layer's own bias."""
        return self.base_layer.bias  # type: ignore[return-value]

    def forward(self, hidden_states: Float[Tensor, "*tokens inputs"]) -> Float[Tensor, "*tokens outputs"]:
        """The layer, and the update of the tokens that it serves."""
        said = self.base_layer(hidden_states)
        if (kinds := self.context.now) is None:
            return said
        source, rows = kinds.source.reshape(-1), hidden_states.reshape(-1, hidden_states.shape[-1])
        if len(source) != len(rows):
            raise ContractError(
                f"a layer with Partial LoRA got {len(rows)} tokens, expected the {len(source)} of the sequence. Does "
                f"the language model cut its sequence? Then leave this layer out of lm.partial_lora.targets"
            )
        flat = said.reshape(-1, said.shape[-1])
        shared = len(self.plora_A) == 1
        for index, (down, up) in enumerate(zip(self.plora_A, self.plora_B, strict=True)):
            own = (source >= 0 if shared else source == index).nonzero()[:, 0]
            update = F.linear(F.linear(self.dropout(rows[own]), down), up) * self.scale
            flat = flat.index_add(0, own, update.to(flat.dtype))
        return flat.reshape(said.shape)


def put_partial_lora(
    module: nn.Module, options: PartialLoRATable, *, layers: list[str], sources: int, context: TokenContext
) -> None:
    """Put Partial LoRA around the linear layers of these names."""
    for name in layers:
        parent, _, last = name.rpartition(".")
        owner = module.get_submodule(parent)
        setattr(owner, last, PartialLoRA(getattr(owner, last), options, sources=sources, context=context))
