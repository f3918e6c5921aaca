"""The feed-forward networks that can become experts, and what they hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")
FUSED = ("gate_up_proj", "down_proj", "activation_fn")
PLAIN = ("fc1", "fc2", "activation_fn")
"""Names inside a feed-forward network: of gated ones (Llama, Qwen, Gemma …; in one matrix Phi-3, GLM), and of those
without a gate (Phi-2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseFFN:
    """A feed-forward network of two layers; of gated ones ``up`` holds the gate's weights above the others.

    Biases are there in plain networks and not in gated ones.
    """

    up: Float[Tensor, "inner D"]
    up_bias: Float[Tensor, " inner"] | None
    down: Float[Tensor, "D I"]
    down_bias: Float[Tensor, " D"] | None
    act: Callable[[Tensor], Tensor]
    gated: bool

    @property
    def inner(self) -> int:
        """I."""
        return self.down.shape[1]

    @property
    def dim(self) -> int:
        """D."""
        return self.down.shape[0]


def read_ffn(module: nn.Module) -> DenseFFN:
    """What a feed-forward network holds.

    Raises:
        ValueError: if it is of a kind that no experts can be made of. Names what it lacks, or has too much.
    """
    made: Any = module
    known = [name for kind in (GATED, FUSED, PLAIN) if all(hasattr(module, one) for one in kind) for name in kind]
    others = sorted({name for name, _ in module.named_parameters() if name.partition(".")[0] not in known})
    if known and others:
        raise ValueError(f"{type(module).__name__} also has {', '.join(others)}, which experts would lose")
    if all(hasattr(module, name) for name in FUSED) and isinstance(made.gate_up_proj, nn.Linear):
        _bare(module, FUSED[:2])
        up, down = made.gate_up_proj.weight, made.down_proj.weight
        return DenseFFN(up=up, up_bias=None, down=down, down_bias=None, act=made.activation_fn, gated=True)
    if all(hasattr(module, name) for name in GATED):
        _bare(module, GATED[:3])
        up = torch.cat([made.gate_proj.weight, made.up_proj.weight])
        return DenseFFN(up=up, up_bias=None, down=made.down_proj.weight, down_bias=None, act=made.act_fn, gated=True)
    if all(hasattr(module, name) for name in PLAIN):
        if bare := [name for name in PLAIN[:2] if getattr(made, name).bias is None]:
            raise ValueError(f"{type(module).__name__} has no biases in {', '.join(bare)}; experts without a gate do")
        return DenseFFN(
            up=made.fc1.weight,
            up_bias=made.fc1.bias,
            down=made.fc2.weight,
            down_bias=made.fc2.bias,
            act=made.activation_fn,
            gated=False,
        )
    lacks = ", ".join(name for name in GATED if not hasattr(module, name))
    raise ValueError(
        f"{type(module).__name__} has no {lacks}; experts are made of gated FFNs as Llama's, or of fc1 and fc2 as Phi's"
    )


def _bare(module: nn.Module, names: Sequence[str]) -> None:
    """Refuse a gated network with biases."""
    if biased := [name for name in names if getattr(module, name).bias is not None]:
        raise ValueError(f"{type(module).__name__} has biases in {', '.join(biased)}; gated experts have none")


@torch.no_grad()
def says_the_same(module: nn.Module, ffn: DenseFFN) -> bool:
    """Whether a network computes what was read from it, and nothing more: tried with a few random rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = torch.randn(4, ffn.dim).to(ffn.down)
    inner = torch.nn.functional.linear(rows, ffn.up, ffn.up_bias)
    if ffn.gated:
        gate, up = inner.chunk(2, dim=-1)
        inner = ffn.act(gate) * up
    else:
        inner = ffn.act(inner)
    said = torch.nn.functional.linear(inner, ffn.down, ffn.down_bias)
    theirs = module(rows[None])[0]
    return torch.allclose(said, theirs, rtol=1e-2, atol=1e-3 * float(theirs.abs().max()))


@torch.no_grad()
def halve(*second: Tensor | None) -> None:
    """Let a feed-forward network say half of what it said, through weights and bias of its second layer."""
    for weights in second:
        if weights is not None:
            weights.mul_(0.5)
