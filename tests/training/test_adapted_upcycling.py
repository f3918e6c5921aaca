"""A language model whose adapters learn, before its networks become experts and after."""

import torch

from polyvex.answer import load

from .conftest import Said
from .runs import Run, weights

STAGES = [
    {"name": "tune", "trains": ["connector", "lm.lora"], "steps": 3, "batch_size": 4, "lr": 1e-2},
    {"name": "experts", "trains": ["lm.lora"], "upcycle": True, "steps": 3, "batch_size": 4, "lr": 1e-2},
]


def test_experts_take_along_what_was_learned_and_get_adapters_of_their_own(run: Run, said: Said) -> None:
    made = run("lm.lora={rank=2}", stages=STAGES, export=True)
    (upcycled,) = [line for line in said if line.startswith("upcycled")]
    assert float(upcycled.rsplit(" ", 1)[1]) < 1e-3
    before, after = weights(made, "0-tune"), weights(made, "1-experts")
    here = "lm.model.layers.0.mlp"
    plain = before[f"{here}.down_proj.base_layer.weight"]
    update = before[f"{here}.down_proj.lora_B.default.weight"] @ before[f"{here}.down_proj.lora_A.default.weight"]
    assert update.abs().max() > 1e-3
    experts = after[f"{here}.experts.base_layer.base_layer.down_proj"]
    assert all(torch.allclose(one, plain + 32 / 2 * update, atol=1e-5) for one in experts)  # alpha 32 over rank 2
    learned = {name for name in after if name.startswith(f"{here}.experts") and "lora_B" in name}
    assert len(learned) == 2  # of gate_up_proj, and of down_proj
    assert all(after[name].any() for name in learned)
    same = [name for name in after if "lora_" not in name and name.startswith("lm.") and name in before]
    assert all(torch.equal(before[name], after[name]) for name in same)
    assert load(made.path).model.lm.model.layers[0].mlp.router.num_experts == 4
