"""Whole runs: stages in order, proof of what trained, and the same again."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyvex.cache import encode
from polyvex.errors import DataError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.recipe import Recipe

from .runs import STAGES, Run, Stage, Whole, curve, record, same, weights


def test_a_run_holds_recipe_lock_stages_evaluations_and_the_model(whole_run: Whole) -> None:
    run, _ = whole_run
    assert run.finished
    assert {path.name for path in run.path.iterdir()} >= {
        "recipe.toml",
        "lock.json",
        "stages",
        "evaluation",
        "config.json",
    }
    assert sorted(path.name for path in (run.path / "stages").iterdir()) == list(STAGES)
    assert sorted(path.name for path in (run.path / "evaluation").iterdir()) == [
        f"{name}{suffix}" for name in STAGES for suffix in (".json", ".jsonl")
    ]
    for name in STAGES:
        assert record(run, name)["steps"] == 3
        assert [line["step"] for line in curve(run, name)] == [1, 2, 3]


def test_what_was_frozen_is_as_before_and_what_trained_is_not(whole_run: Whole) -> None:
    run, _ = whole_run
    trained = {"0-align": {"fusion"}, "1-tune": {"fusion", "lm"}, "2-experts": {"lm.moe"}}
    for name, parts in trained.items():
        before, after = record(run, name)["hashes_before"], record(run, name)["hashes_after"]
        assert {part for part, kinds in before.items() if "trained" in kinds} == parts
        for part, kinds in before.items():
            for kind, digest in kinds.items():
                assert (after[part][kind] == digest) is (kind == "frozen"), (name, part, kind)


def test_frozen_weights_are_bit_for_bit_the_stages_before(whole_run: Whole) -> None:
    run, _ = whole_run
    before, after = weights(run, "1-tune"), weights(run, "2-experts")
    kept = [name for name in before if ".layers.0.mlp." not in name]
    assert len(kept) > 10
    assert all(torch.equal(before[name], after[name]) for name in kept)


def test_losses_are_logged_by_name(whole_run: Whole) -> None:
    run, _ = whole_run
    assert {"step", "loss", "answer_loss", "learning_rate", "grad_norm"} <= set(curve(run, "0-align")[0])
    assert "load_balance" not in curve(run, "1-tune")[0]
    for line in curve(run, "2-experts"):
        assert line["loss"] == pytest.approx(line["answer_loss"] + 0.01 * line["load_balance"], rel=1e-4)


def test_people_are_told_what_happens(whole_run: Whole) -> None:
    run, said = whole_run
    assert said.any_with("patchify: 0 images found in the cache, 24 encoded")
    assert said.any_with("the language model 'small-llama' starts from RANDOM weights")
    assert said.any_with("stage align: connector train (1,568 parameters), 3 steps")
    assert said.any_with("upcycled layers.0.mlp into 4 experts; logits moved by ")
    assert said.any_with("exact_match 2-experts: ")
    assert said.any_with("encoder patchify: (computed from the seed): 1 loaded")
    assert said.any_with(f"finished: {run.path}")


def test_the_finished_model_has_encoders_and_experts(whole_run: Whole, registries: Registries) -> None:
    run, _ = whole_run
    model = PolyvexForConditionalGeneration.from_pretrained(run.path, registries=registries)
    assert set(model.encoders) == {"patchify", "color-grid"}
    assert model.config.moe["num_experts"] == 4
    last = weights(run, "2-experts")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in last.items())


def test_the_evaluation_of_each_stage_is_kept(whole_run: Whole) -> None:
    run, _ = whole_run
    for name in STAGES:
        summary = json.loads(run.evaluation(name).read_text())
        answers = [json.loads(line) for line in run.evaluation(name).with_suffix(".jsonl").read_text().splitlines()]
        assert summary["questions"] == len(answers) == 12
        assert summary["accuracy"] == pytest.approx(sum(answer["score"] for answer in answers) / 12)
        assert set(summary["by_kind"]) == {"color", "side"}
    assert json.loads(run.evaluation("1-tune").read_text())["expert_load"] == {}
    load = json.loads(run.evaluation("2-experts").read_text())["expert_load"]
    assert list(load["lm.model.layers.0.mlp"]) == ["text", "patchify", "color-grid"]


def test_training_learns(run: Run, one_stage: Stage) -> None:
    losses = [line["loss"] for line in curve(run(**one_stage(steps=20, lr=1e-2)), "0-tune")]
    assert losses[-1] < losses[0] / 2


def test_the_same_recipe_and_seed_give_the_same_run(run: Run, whole_run: Whole) -> None:
    first, second = whole_run[0], run()
    for name in STAGES:
        assert curve(first, name) == curve(second, name)
        assert same(weights(first, name), weights(second, name))
        answers = [one.evaluation(name).with_suffix(".jsonl").read_text() for one in (first, second)]
        assert answers[0] == answers[1]


def test_another_seed_gives_another_run(run: Run, one_stage: Stage) -> None:
    first, second = run(**one_stage(), out="a"), run("seed=1", **one_stage(), out="b")
    assert curve(first, "0-tune") != curve(second, "0-tune")


@pytest.mark.parametrize("change", ["training.checkpoint_every=3", "evaluation.batch_size=2", "cache.batch_size=5"])
def test_what_is_only_about_the_machine_changes_nothing(change: str, run: Run, whole_run: Whole) -> None:
    second = run(change)
    assert same(weights(whole_run[0], "2-experts"), weights(second, "2-experts"))


def test_training_reads_the_cache_and_never_builds_an_encoder(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(**one_stage(), out="first")
    monkeypatch.setattr(encode, "load_encoder", lambda *args: pytest.fail("an encoder was loaded"))
    run(**one_stage(), out="second")


def test_samples_with_unreadable_images_are_left_out_and_counted(
    run: Run, one_stage: Stage, own_data: dict[str, Any], said: Any
) -> None:
    for picture in sorted(Path(own_data["folder"]).glob("*.png"))[:2]:
        picture.write_bytes(b"broken")
    sorted(Path(own_data["folder"]).glob("*.png"))[-1].unlink()
    tables = {**one_stage(), "data": {**own_data, "max_unreadable": 0.5}, "evaluation": {"after": "last_stage"}}
    done = run(**tables)
    assert said.any_with("LEFT OUT: 4 training and 2 test samples with unreadable images")
    lock = json.loads(done.lock.read_text())
    assert (lock["samples"], len(lock["unreadable_images"])) == (32 + 10, 3)
    assert json.loads(done.evaluation("0-tune").read_text())["skipped"] == 2


def test_no_readable_sample_at_all_is_told(run: Run, one_stage: Stage, own_data: dict[str, Any]) -> None:
    for picture in Path(own_data["folder"]).glob("*.png"):
        picture.write_bytes(b"broken" + picture.name.encode())
    with pytest.raises(DataError):
        run(**{**one_stage(), "data": {**own_data, "max_unreadable": 1.0}})


def test_a_stage_without_images_trains_and_is_asked_blind(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    plain = PolyvexForConditionalGeneration.forward

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training:
            seen.append(kwargs.get("encoder_tokens"))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(PolyvexForConditionalGeneration, "forward", functools.wraps(plain)(spy))
    tables = {**one_stage(trains=["lm"], images=False), "evaluation": {"after": "last_stage"}}
    done = run(**tables)
    assert seen == [None] * 4
    assert json.loads(done.evaluation("0-tune").read_text())["images"] is False


@pytest.mark.parametrize(("after", "names"), [("each_stage", [0, 1, 2]), ("last_stage", [2]), ("never", [])])
def test_evaluations_are_made_when_the_recipe_says(after: str, names: list[int], run: Run) -> None:
    done = run(f"evaluation.after={after}")
    assert [index for index, name in enumerate(STAGES) if done.evaluation(name).exists()] == names


def test_fewer_questions_can_be_asked(run: Run, one_stage: Stage) -> None:
    done = run(**{**one_stage(), "evaluation": {"after": "last_stage", "limit": 5}})
    assert json.loads(done.evaluation("0-tune").read_text())["questions"] == 5


def test_quiet_is_quiet(run: Run, one_stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    # `say` gets every line for people; nothing may be printed past it, such as the trainer's dictionaries.
    run(**one_stage())
    assert capfd.readouterr().out == ""


def test_the_stored_recipe_reads_back(
    whole_run: Whole, registries: Registries, tiny_recipe: Callable[..., Recipe]
) -> None:
    from polyvex.recipe import read_recipe

    assert read_recipe(whole_run[0].recipe, registries=registries).dump() == tiny_recipe().dump()


def test_a_start_that_fails_binds_nothing(run: Run, one_stage: Stage, tmp_path: Path, tiny_data: Path) -> None:
    with pytest.raises(DataError):
        run(**{**one_stage(), "data": {"use": "jsonl", "folder": str(tmp_path / "none")}})
    assert run(**one_stage()).recipe.exists()


def test_a_sample_beyond_the_context_is_told_before_anything_is_encoded(
    run: Run, one_stage: Stage, own_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "load_encoder", lambda kind, options: pytest.fail("an encoder was loaded"))
    path = Path(own_data["folder"]) / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[7] = json.dumps({**json.loads(lines[7]), "question": "why? " * 60, "id": "long"})
    path.write_text("\n".join(lines), encoding="utf-8")
    told = "1 of 36 samples do not fit the language model's context of 128 tokens; the first is long with"
    with pytest.raises(DataError, match=told):
        run(**{**one_stage(), "data": own_data})


def test_data_may_be_named_relative_to_where_the_command_runs(
    run: Run, one_stage: Stage, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tiny_data.parent)
    tables = {**one_stage(), "data": {"use": "jsonl", "folder": tiny_data.name}}
    first = run(**tables)
    assert f'folder = "{tiny_data}"' in first.recipe.read_text()
    assert run(**tables).path == first.path  # it is the same recipe still


def test_images_in_some_samples_only_train_a_connector(run: Run, one_stage: Stage, own_data: dict[str, Any]) -> None:
    path = Path(own_data["folder"]) / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines[::2]:
        line.pop("image")
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    tables = one_stage(name="align", trains=["connector"], batch_size=1, steps=8)
    assert len(curve(run(**{**tables, "data": own_data}), "0-align")) == 8
