"""The one way to transformers' experts interface, whose functions compute experts in other ways (batched, GPU kernels).

Source: ``transformers.integrations.moe`` 5.23. This file alone knows what those functions read of a module; it moves
with transformers.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polyvex.errors import RecipeError

if TYPE_CHECKING:
    from polyvex.moe.experts import Experts

PREFIX = "transformers."
"""What a recipe writes before the name of such a function."""

Compute = Callable[["Experts", Tensor, Tensor], Tensor]


def interface(backend: str) -> Compute:
    """The function that ``backend`` names, for rows that are sorted by expert.

    Raises:
        RecipeError: if transformers has no such function. Names those that there are.
    """
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    name = backend.removeprefix(PREFIX)
    known = ALL_EXPERTS_FUNCTIONS.valid_keys()
    if name not in known:
        names = ", ".join(f"{PREFIX}{one}" for one in sorted(known))
        raise RecipeError([f"[moe]: no backend '{backend}'. There are auto, loop, grouped_mm, {names}"])
    function: Any = ALL_EXPERTS_FUNCTIONS[name]

    def compute(experts: "Experts", rows: Float[Tensor, "A D"], sizes: Int[Tensor, " E"]) -> Float[Tensor, "A D"]:
        expert = torch.arange(experts.num_experts, device=rows.device).repeat_interleave(sizes, output_size=len(rows))
        # Each row is a token with one expert and the weight 1: weights are applied where rows are put together.
        return function(_seen(experts), rows, expert[:, None], torch.ones_like(rows[:, :1]))

    return compute


def _seen(experts: "Experts") -> SimpleNamespace:
    """What transformers' functions read of its own experts."""
    up, down = experts.first, experts.second
    names = ("gate_up_proj", "gate_up_proj_bias") if experts.gated else ("up_proj", "up_proj_bias")
    return SimpleNamespace(
        **dict(zip(names, up, strict=True)),
        down_proj=down[0],
        down_proj_bias=down[1],
        act_fn=experts.act,
        _apply_gate=experts.between,
        num_experts=experts.num_experts,
        hidden_dim=down[0].shape[1],
        intermediate_dim=experts.inner,
        has_gate=experts.gated,
        has_bias=up[1] is not None,
        has_post_expert_norm=False,
        is_transposed=False,
        is_concatenated=True,
        _is_expert_parallel=False,
        training=experts.training,
    )
