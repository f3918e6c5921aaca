"""Stages with each kind of router: what is logged, what learns, and that the run answers."""

import json

import pytest
import torch
from torch import nn

from polyvex.answer import load
from polyvex.errors import TrainingError
from polyvex.moe.upcycle import install_experts, moe_layers
from polyvex.training.stages import StageTrainer

from .conftest import Said
from .runs import Run, curve, interrupt, weights

ROUTERS = {
    "switch": "{use='switch', jitter=0.1}",
    "noisy_top_k": "{use='noisy_top_k', k=2}",
    "full": "{use='top_k', k=2, capacity=0.5}",
    "expert_choice": "{use='expert_choice', capacity=1.0}",
    "soft": "{use='soft', slots=2}",
}


@pytest.mark.parametrize("router", ROUTERS)
def test_experts_of_each_router_train_and_answer(router: str, run: Run) -> None:
    non_causal = ["moe.non_causal=true"] if router in ("expert_choice", "soft") else []
    weighed = ["loss.load=0.1", "loss.importance=0.1"] if router == "noisy_top_k" else []
    finished = run(f"moe.router={ROUTERS[router]}", *non_causal, *weighed, export=True)
    steps = curve(finished, "2-experts")
    names = {"load_balance", "router_z", "importance", "load", "answer_loss"}
    assert all(names <= step.keys() for step in steps)
    assert all(("dropped" in step) is (router in ("full", "expert_choice")) for step in steps)
    if router == "full":
        assert all(0 < step["dropped"] < 1 for step in steps)
    if router == "noisy_top_k":
        parts = steps[0]
        total = parts["answer_loss"] + 0.01 * parts["load_balance"] + 0.1 * (parts["load"] + parts["importance"])
        assert parts["loss"] == pytest.approx(total, rel=1e-5)
    summary = json.loads(finished.evaluation("2-experts").read_text(encoding="utf-8"))
    assert summary["questions"] == 12
    assert list(summary["expert_load"]) == ["lm.model.layers.0.mlp"]
    assistant = load(finished.path)
    (_, layer) = next(moe_layers(assistant.model))
    trained = weights(finished, "2-experts")
    assert all(torch.equal(value, trained[f"lm.model.layers.0.mlp.{key}"]) for key, value in layer.state_dict().items())


STARTS = {
    "shared": ["moe.beside=shared"],
    "residual": ["moe.beside=residual"],
    "drop": ["moe.start=drop", "moe.drop=0.25"],
    "parts": ["moe.granularity=2"],
    "by layer": ["moe.num_experts=[2, 3]", "moe.layers=dense"],
}


@pytest.mark.parametrize("start", STARTS)
def test_experts_of_each_start_train_are_stored_and_answer(start: str, run: Run, said: Said) -> None:
    finished = run(*STARTS[start], export=True)
    (line,) = [line for line in said if line.startswith("upcycled")]
    moved = float(line.rpartition(" ")[2])
    assert (moved > 1e-3) is (start == "drop")
    assistant, trained = load(finished.path), weights(finished, "2-experts")
    state = assistant.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in trained.items())
    before = weights(finished, "1-tune")
    kept = {name for name in before if not name.startswith("lm.model.layers.") or ".mlp." not in name}
    assert all(torch.equal(before[name], trained[name]) for name in kept)
    if start in ("shared", "residual"):
        down = "lm.model.layers.0.mlp.beside.down_proj.weight"
        factor = 0.5 if start == "shared" else 1.0
        first = before["lm.model.layers.0.mlp.down_proj.weight"] * factor
        assert not torch.equal(trained[down], first)  # it learned,
        assert torch.allclose(trained[down], first, atol=0.01)  # from what the network was


def test_a_router_that_is_not_a_number_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil() -> None:
        (_, layer) = next(moe_layers(spoilt[0].model))
        layer.router.weight.data[0, 0] = torch.nan

    spoilt: list[StageTrainer] = []
    monkeypatch.setattr(StageTrainer, "__init__", _kept(spoilt))
    interrupt(monkeypatch, "experts", 1, spoil)
    with pytest.raises(TrainingError, match=r"stage experts: the loss is nan at step 1.*mlp\.router\.weight holds"):
        run()


def test_weights_that_are_not_numbers_stop_a_stage_before_it_begins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(lm: nn.Module, *args: object, **kwargs: object) -> list[str]:
        names = install_experts(lm, *args, **kwargs)  # type: ignore[arg-type]
        next(moe_layers(lm))[1].router.weight.data[0, 0] = torch.inf
        return names

    monkeypatch.setattr("polyvex.training.upcycle.install_experts", spoil)
    with pytest.raises(TrainingError, match=r"stage experts: lm\.model\.layers\.0\.mlp\.router\.weight hold numbers"):
        run("moe.router.renormalize=false")


def _kept(found: list[StageTrainer]) -> object:
    plain = StageTrainer.__init__

    def init(self: StageTrainer, *args: object, **kwargs: object) -> None:
        plain(self, *args, **kwargs)  # type: ignore[arg-type]
        found[:] = [self]

    return init
