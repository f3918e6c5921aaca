"""What reducers and fusion cost, without memory: by hand, and as it is on real tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyvex.assemble import build, empty_model
from polyvex.hooks.manager import Registries
from polyvex.plan import make_plan
from polyvex.plan.cost import joining_cost
from polyvex.recipe import Recipe

FUSIONS: dict[str, list[str]] = {
    "mlp": [],
    "qformer": ["fusion={use='qformer', queries=3, hidden=8, heads=2, ffn=16, layers=2, width=12}"],
    "multi_qformer": ["fusion={use='multi_qformer', queries=3, hidden=8, heads=2, ffn=16, layers=2, width=12}"],
    "channel": ["fusion={use='channel', grid=[2, 2]}"],
    "interleave": ["fusion={use='interleave', grid=[2, 2]}"],
    "gated": ["fusion={use='gated', grid=[2, 2]}"],
    "sva": ["fusion={use='sva', grid=[2, 2], hidden=8, heads=2, ffn=16, window=2}"],
    "soft_moe": ["fusion={use='soft_moe', slots=2}"],
    "routed": ["fusion={use='routed', grid=[2, 2]}"],
    "reduced": ["encoders.1.reduce={use='perceiver', queries=3, heads=2}"],
}


def test_an_mlp_by_hand(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    found = joining_cost(empty_model(tiny_recipe(), registries), [1, 1])
    # 4 tokens of 8 and 8 tokens of 6 numbers, each to 32 and on to 32; a product is two operations.
    assert found.flops == 2 * 4 * (8 + 32) * 32 + 2 * 8 * (6 + 32) * 32
    # Kept: what comes in, what GELU sees, and what it gives, for 12 tokens, 4 bytes a number.
    assert found.kept == 4 * (4 * 8 + 8 * 6 + 12 * 32 + 12 * 32)
    assert joining_cost(empty_model(tiny_recipe(), registries), [5, 5]).flops == 5 * found.flops


@pytest.mark.parametrize("name", FUSIONS)
def test_it_is_what_a_real_forward_takes(name: str, tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    recipe = tiny_recipe(*FUSIONS[name], "positions.use=share_all")
    counted = joining_cost(empty_model(recipe, registries), [1, 1])
    model: Any = build(recipe, registries=registries, texts=["what?"]).model
    tokens = {"patchify": torch.randn(1, 4, 8), "color-grid": torch.randn(1, 8, 6)}
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it counts no other
        model.see(None, tokens)
    assert counted.flops == counter.get_total_flops() > 0
    assert counted.kept > 0


def test_planning_takes_no_memory_for_the_connector(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    recipe = tiny_recipe("fusion.hidden=50000000")  # some hundred gigabytes
    model = empty_model(recipe, registries)
    assert {parameter.device.type for parameter in model.fusion.parameters()} == {"meta"}
    assert make_plan(recipe, registries).fusion_parameters > 10**9


def test_what_a_fusion_reads_counts(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    """The language model sees as many tokens, but the windows are four times as large."""
    plans = [
        make_plan(
            tiny_recipe(FUSIONS["sva"][0].replace("window=2", f"window={size}"), "positions.use=share_all"), registries
        )
        for size in (2, 4)
    ]
    assert plans[0].visual_tokens == plans[1].visual_tokens
    assert plans[1].stages[0].flops > plans[0].stages[0].flops
    assert plans[1].stages[0].memory_bytes > plans[0].stages[0].memory_bytes
