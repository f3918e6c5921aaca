"""Experts: feed-forward networks in fused 3-D weights, and the ways to compute them.

Letters as in ``routing.py``; A = T·K assignments of a token to an expert.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from polyvex.moe.interface import interface
from polyvex.moe.routing import Routing

MANY, FEW = 8, 512
"""More experts than this, or fewer rows for each than that, are computed by one grouped product."""

CPU, GPU = (torch.float32, torch.bfloat16, torch.float16), (torch.bfloat16,)
"""Precisions that torch's grouped product takes."""


class Experts(nn.Module, ABC):
    """E feed-forward networks of two layers. A subclass says what they hold and what happens in between.

    ``backend`` is how they are computed: ``auto`` (by their shape), ``loop``, ``grouped_mm``, or ``transformers.NAME``,
    a function of its experts interface. All give the same values and gradients.

    Weights and biases are fused, one expert behind the other, and are called as transformers' own experts call theirs.
    """

    gated: bool

    def __init__(self, *, num_experts: int, act: Callable[[Tensor], Tensor], backend: str):
        super().__init__()
        self.num_experts = num_experts
        self.act = act
        self.backend = backend

    @property
    @abstractmethod
    def first(self) -> tuple[Float[Tensor, "E inner D"], Float[Tensor, "E inner"] | None]:
        """Weights and bias of the first layer."""

    @property
    @abstractmethod
    def second(self) -> tuple[Float[Tensor, "E D I"], Float[Tensor, "E D"] | None]:
        """Weights and bias of the second layer."""

    @abstractmethod
    def between(self, hidden: Float[Tensor, "A inner"]) -> Float[Tensor, "A I"]:
        """What happens to the first layer's output before the second."""

    @property
    def inner(self) -> int:
        """I."""
        return self.second[0].shape[2]

    def forward(self, tokens: Float[Tensor, "T D"], routing: Routing) -> Float[Tensor, "T D"]:
        """Send tokens to their experts and add what they return, by weight, as ``routing`` says."""
        sent = routing.dispatch(tokens)
        return routing.combine(self.chosen_backend(sent.rows)(sent.rows, sent.sizes), sent)

    def chosen_backend(self, rows: Float[Tensor, "A D"]) -> Callable[[Tensor, Tensor], Tensor]:
        """How these rows are computed."""
        if self.backend == "grouped_mm" or (self.backend == "auto" and self._groups(rows)):
            return self._grouped
        return self._loop if self.backend in ("auto", "loop") else self._elsewhere

    def _groups(self, rows: Float[Tensor, "A D"]) -> bool:
        """Whether one grouped product is quicker than a loop: for many experts, and for few rows each.

        Measured on a CPU (``benchmarks/experts.py``): with hundreds of rows for each expert a loop is up to a tenth
        quicker; with fewer, what counts is how often weights and their gradients are copied. Others found few large
        experts to be as quick in a loop on GPUs.
        """
        if len(rows) >= FEW * self.num_experts and self.num_experts <= MANY:
            return False
        dtype = _computed_in(rows, self.first[0])
        known = CPU if rows.device.type == "cpu" else GPU
        return dtype in known and _aligned(dtype, rows, self.first[0], self.second[0])

    def _loop(self, sorted_tokens: Float[Tensor, "A D"], sizes: Int[Tensor, " E"]) -> Float[Tensor, "A D"]:
        # Unbound at once: the gradient of an index into fused weights is as large as all of them, for each expert.
        ups, up_biases = self._unbound(*self.first)
        downs, down_biases = self._unbound(*self.second)
        outputs = []
        for index, part in enumerate(sorted_tokens.split(sizes.tolist())):
            inner = self.between(F.linear(part, ups[index], up_biases[index]))
            outputs.append(F.linear(inner, downs[index], down_biases[index]))
        return torch.cat(outputs)

    def _unbound(self, weight: Tensor, bias: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        return weight.unbind(), (None,) * self.num_experts if bias is None else bias.unbind()

    def _grouped(self, sorted_tokens: Float[Tensor, "A D"], sizes: Int[Tensor, " E"]) -> Float[Tensor, "A D"]:
        ends = sizes.cumsum(0).to(torch.int32)
        hidden = self.between(_grouped_linear(sorted_tokens, *self.first, ends))
        return _grouped_linear(hidden, *self.second, ends)

    def _elsewhere(self, sorted_tokens: Float[Tensor, "A D"], sizes: Int[Tensor, " E"]) -> Float[Tensor, "A D"]:
        return interface(self.backend)(self, sorted_tokens, sizes)


class GatedExperts(Experts):
    """E gated FFNs: ``down(act(gate(x)) * up(x))``, as Llama's, without biases.

    ``gate_up_proj`` holds gate above up, [E, 2·I, D], and ``down_proj`` is [E, D, I].
    """

    gated = True

    def __init__(self, *, num_experts: int, dim: int, hidden: int, act: Callable[[Tensor], Tensor], backend: str):
        super().__init__(num_experts=num_experts, act=act, backend=backend)
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * hidden, dim))
        self.down_proj = nn.Parameter(torch.empty(num_experts, dim, hidden))
        for weights in (self.gate_up_proj, self.down_proj):
            nn.init.normal_(weights, std=0.02)

    @property
    def first(self) -> tuple[Tensor, None]:
        """Gate and up projection."""
        return self.gate_up_proj, None

    @property
    def second(self) -> tuple[Tensor, None]:
        """Down projection."""
        return self.down_proj, None

    def between(self, hidden: Float[Tensor, "A twice"]) -> Float[Tensor, "A I"]:
        """The gate, activated, times the rest."""
        gate, up = hidden.chunk(2, dim=-1)
        return self.act(gate) * up


class PlainExperts(Experts):
    """E FFNs without a gate: ``down(act(up(x)))`` with biases, as Phi-2's.

    ``up_proj`` is [E, I, D] and ``down_proj`` [E, D, I].
    """

    gated = False

    def __init__(self, *, num_experts: int, dim: int, hidden: int, act: Callable[[Tensor], Tensor], backend: str):
        super().__init__(num_experts=num_experts, act=act, backend=backend)
        self.up_proj = nn.Parameter(torch.empty(num_experts, hidden, dim))
        self.up_proj_bias = nn.Parameter(torch.zeros(num_experts, hidden))
        self.down_proj = nn.Parameter(torch.empty(num_experts, dim, hidden))
        self.down_proj_bias = nn.Parameter(torch.zeros(num_experts, dim))
        for weights in (self.up_proj, self.down_proj):
            nn.init.normal_(weights, std=0.02)

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """Up projection and its bias."""
        return self.up_proj, self.up_proj_bias

    @property
    def second(self) -> tuple[Tensor, Tensor]:
        """Down projection and its bias."""
        return self.down_proj, self.down_proj_bias

    def between(self, hidden: Float[Tensor, "A I"]) -> Float[Tensor, "A I"]:
        """The activation."""
        return self.act(hidden)


def _grouped_linear(
    rows: Float[Tensor, "A n"], weight: Float[Tensor, "E m n"], bias: Float[Tensor, "E m"] | None, ends: Tensor
) -> Float[Tensor, "A m"]:
    dtype = _computed_in(rows, weight)  # the grouped product does not see autocast
    made = F.grouped_mm(rows.to(dtype), weight.to(dtype).transpose(1, 2), offs=ends)
    if bias is None:
        return made
    sizes = ends.diff(prepend=ends.new_zeros(1))  # torch's grouped product takes no bias yet
    return made + bias.to(dtype).repeat_interleave(sizes, dim=0, output_size=len(rows))


def _computed_in(rows: Tensor, weight: Tensor) -> torch.dtype:
    """The precision of a matrix product here: autocast's where it is on."""
    kind = rows.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _aligned(dtype: torch.dtype, *tensors: Tensor) -> bool:
    """Grouped GEMMs want rows of a multiple of 16 bytes."""
    return all(tensor.shape[-1] * dtype.itemsize % 16 == 0 for tensor in tensors)
