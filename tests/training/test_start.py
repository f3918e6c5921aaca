"""Runs that begin with a stage of another one: what they begin with, what they end as, and what stops them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from polyvex.answer import load
from polyvex.assemble import build
from polyvex.errors import RecipeError, RunError, TrainingError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe, read_recipe
from polyvex.rundir import RunDirectory
from polyvex.training.evaluate import evaluate_run
from polyvex.training.stages import StageTrainer

from .conftest import Said
from .runs import Killed, Run, Whole, curve, interrupt, kill, same, weights

EXPERTS = {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 3, "batch_size": 4}
MORE = {"name": "more", "trains": ["lm.moe"], "steps": 2, "batch_size": 4}


def after(run: RunDirectory, stage: str) -> dict[str, Any]:
    return {"start": {"run": str(run.path), "stage": stage}}


@pytest.fixture
def source(whole_run: Whole, tmp_path: Path) -> RunDirectory:
    """A copy of the tiny recipe's run that a test may change."""
    return RunDirectory(shutil.copytree(whole_run[0].path, tmp_path / "source"))


def test_a_stage_trains_the_same_in_a_run_of_its_own(whole_run: Whole, run: Run, said: Said) -> None:
    again = run(stages=[EXPERTS], **after(whole_run[0], "tune"))
    assert same(weights(whole_run[0], "2-experts"), weights(again, "0-experts"))
    assert curve(whole_run[0], "2-experts") == curve(again, "0-experts")
    assert f"starts from {whole_run[0].path}, after stage tune" in said
    assert not said.any_with("RANDOM")
    assert not said.any_with("NOT AS THERE")


def test_adapters_may_be_new_and_begin_without_effect(whole_run: Whole, run: Run, said: Said) -> None:
    stages = [{**MORE, "trains": ["lm.lora", "lm.partial_lora"]}]
    changes = ("lm.lora={rank=2}", "lm.partial_lora={rank=2, targets=['q_proj', 'o_proj']}")
    again = run(*changes, stages=stages, **after(whole_run[0], "experts"))
    before, now = weights(whole_run[0], "2-experts"), weights(again, "0-more")
    plain = {name.replace(".base_layer", ""): value for name, value in now.items() if "lora_" not in name}
    assert same(before, plain)
    learned = [name for name in now if "lora_B" in name]
    assert len(learned) > 10
    resting = {name for name in learned if not now[name].any()}
    assert all("layers.1." in name and "plora" in name for name in resting)  # nobody reads visual tokens behind it
    with pytest.raises(RecipeError, match=r"unexpected here: lm\.model\.layers\.0\.mlp\.experts\.base_layer\.lora_A"):
        run(stages=[MORE], out="third", **after(again, "more"))  # adapters that would be lost


def test_weights_that_are_no_numbers_are_told_before_anything_is_encoded(
    source: RunDirectory, run: Run, said: Said
) -> None:
    path = source.path / "stages" / "1-tune" / "model" / "model.safetensors"
    state = load_file(path)
    state["lm.lm_head.weight"][0, 0] = float("nan")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"holds numbers that are not finite: lm\.lm_head\.weight"):
        run(stages=[EXPERTS], **after(source, "tune"))
    assert not said.any_with("encoded")


def test_the_last_finished_stage_is_written_down_where_none_is_named(
    whole_run: Whole, run: Run, said: Said, registries: Registries
) -> None:
    again = run(stages=[MORE], start={"run": str(whole_run[0].path)})
    assert read_recipe(again.recipe, registries=registries).dump()["start"]["stage"] == "experts"
    assert said.any_with("after stage experts")


def test_experts_of_a_start_train_on_with_another_capacity(whole_run: Whole, run: Run, said: Said) -> None:
    again = run("moe.router.capacity=0.5", stages=[MORE], export=True, **after(whole_run[0], "experts"))
    assert "NOT AS THERE: moe.router.capacity: None there, 0.5 here" in said
    assert not said.any_with("upcycled")
    assert all(0 < step["dropped"] < 1 for step in curve(again, "0-more"))
    before, now = weights(whole_run[0], "2-experts"), weights(again, "0-more")
    moved = {name for name in before if not torch.equal(before[name], now[name])}
    assert moved
    assert all(name.startswith("lm.model.layers.0.mlp.") for name in moved)
    assert load(again.path).model.config.moe["router"]["capacity"] == 0.5


def test_another_router_after_the_same_stages(whole_run: Whole, run: Run, said: Said) -> None:
    again = run("moe.router={use='noisy_top_k', k=1}", stages=[EXPERTS], **after(whole_run[0], "tune"))
    assert sum("router" in name for name in weights(again, "0-experts")) > 1  # noise has weights of its own
    assert not said.any_with("NOT AS THERE")


def test_the_finished_run_stands_in_for_its_last_stage(source: RunDirectory, run: Run) -> None:
    by_stage = run(stages=[MORE], out="a", **after(source, "experts"))
    shutil.rmtree(source.path / "stages" / "2-experts" / "model")
    by_run = run(stages=[MORE], out="b", **after(source, "experts"))
    assert same(weights(by_stage, "0-more"), weights(by_run, "0-more"))


def test_the_model_before_any_training_is_that_of_the_stage(
    whole_run: Whole, tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    recipe = tiny_recipe("seed=5", stages=[MORE], **after(whole_run[0], "experts"))
    built = build(recipe, registries=registries)
    state = built.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights(whole_run[0], "2-experts").items())
    assert set(built.weights) == {"patchify", "color-grid"}  # frozen encoders, from their own files


def test_the_tokenizer_is_that_of_the_other_run(
    whole_run: Whole, run: Run, own_data: dict[str, Any], registries: Registries
) -> None:
    # Other words would train another tokenizer here, whose ids mean something else.
    path = Path(own_data["folder"]) / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps({**line, "question": "Wie heißt die Farbe?", "answer": "weiß"}) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    tables = {"stages": [EXPERTS], "data": own_data}
    again = run(out="again", **tables, **after(whole_run[0], "tune"))
    anew = run(out="anew", **{**tables, "stages": [{**EXPERTS, "trains": ["lm"]}]})
    there, here, other = (
        json.loads((one.path / "tokenizer.json").read_text(encoding="utf-8")) for one in (whole_run[0], again, anew)
    )
    assert there["model"]["vocab"] == here["model"]["vocab"] != other["model"]["vocab"]
    assert there["added_tokens"] == here["added_tokens"]


def test_a_killed_first_stage_goes_on(whole_run: Whole, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"stages": [EXPERTS], "start": {"run": str(whole_run[0].path), "stage": "tune"}}
    with monkeypatch.context() as patch:
        interrupt(patch, "experts", 2, kill)
        with pytest.raises(Killed):
            run(**tables)
    steps: list[int] = []
    with monkeypatch.context() as patch:
        interrupt(patch, "experts", 2, lambda: steps.append(2))
        again = run(**tables)
    assert steps == [2]
    assert same(weights(whole_run[0], "2-experts"), weights(again, "0-experts"))


def killed_in(stage: str, run: Run, monkeypatch: pytest.MonkeyPatch, **tables: Any) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, stage, 1, kill)
        with pytest.raises(Killed):
            run(**tables)


def test_inside_the_first_stage_other_weights_are_refused(
    source: RunDirectory, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tables = {"stages": [EXPERTS], **after(source, "tune")}
    killed_in("experts", run, monkeypatch, **tables)
    first, second = (source.path / "stages" / name / "model" / "model.safetensors" for name in ("0-align", "1-tune"))
    shutil.copy(first, second)
    with pytest.raises(RunError, match=rf"^{tmp_path / 'run'}: start_sha256 is now .*, but the run began with "):
        run(**tables)


def test_inside_the_first_stage_the_other_run_is_needed(
    source: RunDirectory, run: Run, monkeypatch: pytest.MonkeyPatch, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(stages=[EXPERTS], **after(source, "tune"))
    killed_in("experts", run, monkeypatch, recipe=recipe)
    shutil.rmtree(source.path)
    with pytest.raises(RecipeError, match=r"\[start\]: .*source does not exist"):
        run(recipe=recipe)


def test_after_the_first_stage_the_other_run_may_be_deleted(
    source: RunDirectory,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tiny_recipe: Callable[..., Recipe],
    registries: Registries,
) -> None:
    recipe = tiny_recipe(stages=[EXPERTS, MORE], start={"run": str(source.path), "stage": "tune"})
    unbroken = run(recipe=recipe, out="unbroken")
    killed_in("more", run, monkeypatch, recipe=recipe)
    shutil.rmtree(source.path)
    again = run(recipe=recipe, export=True)
    assert again.finished
    assert same(weights(unbroken, "1-more"), weights(again, "1-more"))
    assert evaluate_run(again.path, limit=2, registries=registries, say=lambda _: None, progress=False).answers
    monkeypatch.setattr(StageTrainer, "compute_loss", lambda *args, **kwargs: pytest.fail("trained again"))
    run(recipe=recipe, export=True)


def test_where_the_other_run_lies_does_not_count(
    source: RunDirectory, run: Run, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    killed_in("experts", run, monkeypatch, stages=[EXPERTS], **after(source, "tune"))
    moved = RunDirectory(Path(shutil.move(source.path, source.path.with_name("moved"))))
    again = run(stages=[EXPERTS], **after(moved, "tune"))
    assert said.any_with(f"starts from {moved.path}, after stage tune")
    assert f'run = "{moved.path}"' in again.recipe.read_text(encoding="utf-8")
    with pytest.raises(RunError, match=r"start\.stage: 'tune' there, 'align' here"):
        run(stages=[EXPERTS], **after(moved, "align"))


def test_what_does_not_fit_is_told_before_anything_is_encoded(whole_run: Whole, run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run("lm.ffn_size=48", stages=[EXPERTS], **after(whole_run[0], "tune"))
    (problem,) = caught.value.problems
    keys = [f"lm.model.layers.{layer}.mlp" for layer in (0, 1)]
    assert all(f"{key}.gate_proj.weight ([64, 32] there, [48, 32] here)" in problem for key in keys)
    assert "What differs: lm.ffn_size: 64 there, 48 here. Make these tables" in problem
    assert not (tmp_path / "run").exists()


def test_encoders_with_other_weights_are_told(source: RunDirectory, run: Run, said: Said) -> None:
    lock = json.loads(source.lock.read_text(encoding="utf-8"))
    lock["weights_sha256"]["patchify"] = "another"
    source.lock.write_text(json.dumps(lock), encoding="utf-8")
    run(stages=[EXPERTS], **after(source, "tune"))
    assert "NOT AS THERE: weights of.patchify: 'another' there, None here" in said


def test_encoders_in_another_order_are_told(whole_run: Whole, run: Run, said: Said) -> None:
    # Of one width, so that all weights fit and mean something else.
    tables = {"stages": [{**MORE, "trains": ["connector"]}], "moe": None}
    encoders = [{"use": "patchify", "name": name, "dim": 8, "image_size": 32, "patch_size": 16} for name in "ab"]
    encoders[1]["seed"] = 3
    first = run(encoders=encoders, out="first", **tables)
    run(encoders=encoders[::-1], **tables, **after(first, "more"))
    assert "NOT AS THERE: encoders.0.name: 'a' there, 'b' here" in said


def test_the_language_models_own_weights_need_not_be_there(run: Run, tmp_path: Path) -> None:
    # A mixture of its own: transformers stores it under other names than it runs it.
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("mixtral", **sizes, vocab_size=300, num_key_value_heads=2, num_local_experts=4)
    folder = tmp_path / "lm"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    small = run(out="small", moe=None, stages=[{**MORE, "trains": ["connector"]}])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small.path / name, folder / name)
    tables = {"lm": {"use": "pretrained", "checkpoint": str(folder)}, "moe": None}
    stages = [{**MORE, "name": name, "trains": ["connector"]} for name in ("a", "b")]
    whole = run("loss.load_balance=0.0", out="whole", stages=stages, **tables)
    (folder / "model.safetensors").unlink()
    again = run("loss.load_balance=0.0", out="again", stages=stages[1:], **tables, **after(whole, "a"))
    assert same(weights(whole, "1-b"), weights(again, "0-b"))
