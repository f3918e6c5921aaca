"""Experts: gated feed-forward networks in fused 3-D weights, and two ways to compute them.

Letters as in ``routing.py``; A = T·K assignments of a token to an expert.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from polyvex.moe.routing import Routing

Backend = Literal["auto", "loop", "grouped_mm"]


class GatedExperts(nn.Module):
    """E gated FFNs: ``down(act(gate(x)) * up(x))``, as Llama's, without biases.

    ``gate_up_proj`` holds gate above up, [E, 2·I, D], and ``down_proj`` is [E, D, I], as transformers' experts do.
    """

    def __init__(self, *, num_experts: int, dim: int, hidden: int, act: Callable[[Tensor], Tensor], backend: Backend):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * hidden, dim))
        self.down_proj = nn.Parameter(torch.empty(num_experts, dim, hidden))
        for weights in (self.gate_up_proj, self.down_proj):
            nn.init.normal_(weights, std=0.02)
        self.act = act
        self.backend: Backend = backend

    def forward(self, tokens: Float[Tensor, "T D"], routing: Routing) -> Float[Tensor, "T D"]:
        """Send tokens to their experts and add what they return, by weight, as ``routing`` says."""
        sent = routing.dispatch(tokens)
        run = self._grouped if self._use_grouped(tokens) else self._loop
        return routing.combine(run(sent.rows, sent.sizes), sent)

    def _use_grouped(self, tokens: Tensor) -> bool:
        if self.backend != "auto":
            return self.backend == "grouped_mm"
        # Few large experts: a loop is as fast (measured by others on GPUs and CPUs); many small ones: grouped.
        return self.gate_up_proj.shape[0] > 8 and _aligned(tokens, self.gate_up_proj, self.down_proj)

    def _loop(self, sorted_tokens: Float[Tensor, "A D"], sizes: Tensor) -> Float[Tensor, "A D"]:
        parts = sorted_tokens.split(sizes.tolist())
        # Unbound at once: the gradient of an index into fused weights is as large as all of them, for each expert.
        weights = zip(parts, self.gate_up_proj.unbind(), self.down_proj.unbind(), strict=True)
        outputs = [F.linear(self._gate(F.linear(part, gate_up)), down) for part, gate_up, down in weights]
        return torch.cat(outputs)

    def _grouped(self, sorted_tokens: Float[Tensor, "A D"], sizes: Tensor) -> Float[Tensor, "A D"]:
        ends = sizes.cumsum(0).to(torch.int32)
        hidden = F.grouped_mm(sorted_tokens, self.gate_up_proj.transpose(1, 2), offs=ends)
        return F.grouped_mm(self._gate(hidden), self.down_proj.transpose(1, 2), offs=ends)

    def _gate(self, hidden: Float[Tensor, "A twice"]) -> Float[Tensor, "A I"]:
        gate, up = hidden.chunk(2, dim=-1)
        return self.act(gate) * up


def _aligned(*tensors: Tensor) -> bool:
    """Grouped GEMMs want rows of a multiple of 16 bytes."""
    return all(tensor.shape[-1] * tensor.element_size() % 16 == 0 for tensor in tensors)
