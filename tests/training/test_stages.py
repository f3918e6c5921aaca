"""Whole runs: stages in order, proof of what trained, the same again, and going on after any stop."""

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyvex.cache import encode
from polyvex.errors import DataError, RunError, TrainingError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory
from polyvex.training.stages import Stopped
from polyvex.training.trainer import StageTrainer, read_metrics

Run = Callable[..., RunDirectory]
Stage = Callable[..., dict[str, Any]]
Whole = tuple[RunDirectory, Any]
STAGES = ("0-align", "1-tune", "2-experts")


class Killed(BaseException):
    """As if the process were gone: nothing in the code under test catches it."""


def stage(run: RunDirectory, name: str) -> Path:
    return run.path / "stages" / name


def record(run: RunDirectory, name: str) -> dict[str, Any]:
    return json.loads((stage(run, name) / "done.json").read_text())


def weights(run: RunDirectory, name: str) -> dict[str, Tensor]:
    return load_file(stage(run, name) / "model" / "model.safetensors")


def curve(run: RunDirectory, name: str) -> list[dict[str, float]]:
    return read_metrics(stage(run, name) / "metrics.jsonl")


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def interrupt(patch: pytest.MonkeyPatch, name: str, step: int, action: Callable[[], None]) -> None:
    """Do something in a stage before the pass that comes after ``step`` optimizer steps."""
    plain = StageTrainer.compute_loss

    def spy(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.stage.name == name and self.state.global_step == step:
            action()
        return plain(self, *args, **kwargs)

    patch.setattr(StageTrainer, "compute_loss", spy)


def kill() -> None:
    raise Killed


# --- what a run leaves behind ----------------------------------------------------------------------------------------


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
    assert said.any_with("accuracy 2-experts: ")
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


# --- the same again --------------------------------------------------------------------------------------------------


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


# --- stopped and gone on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [("align", 0), ("align", 2), ("tune", 0), ("tune", 1), ("tune", 2), ("experts", 0), ("experts", 2)],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    name: str, step: int, run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Checkpoints are every two steps: killed at 1 the stage begins again, at 2 it goes on from there.
    with monkeypatch.context() as patch:
        interrupt(patch, name, step, kill)
        with pytest.raises(Killed):
            run()
    resumed = run()
    for stage_name in STAGES:
        assert same(weights(whole_run[0], stage_name), weights(resumed, stage_name)), stage_name
        assert curve(whole_run[0], stage_name) == curve(resumed, stage_name), stage_name


def test_a_run_goes_on_from_the_checkpoint_not_from_the_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 2, kill)
        with pytest.raises(Killed):
            run()
    steps: list[tuple[str, int]] = []
    plain = StageTrainer.compute_loss

    def spy(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        steps.append((self.stage.name, self.state.global_step))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", spy)
    run()
    assert steps == [("tune", 2), ("experts", 0), ("experts", 1), ("experts", 2)]


def test_ctrl_c_saves_at_once_and_the_run_goes_on_from_there(
    run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 0, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped, match=r"^stopped at step 1 of stage tune; a checkpoint is saved$"):
            run()
    seen: list[int] = []
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 1, lambda: seen.append(1))
        resumed = run()
    assert seen == [1]
    assert same(weights(whole_run[0], "2-experts"), weights(resumed, "2-experts"))
    assert curve(whole_run[0], "1-tune") == curve(resumed, "1-tune")


def test_killed_while_the_model_of_a_stage_is_written(
    run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyvex.rundir import StageDirectory

    with monkeypatch.context() as patch:
        patch.setattr(StageDirectory, "finish", lambda self, record: kill())
        with pytest.raises(Killed):
            run()
    assert same(weights(whole_run[0], "2-experts"), weights(run(), "2-experts"))


def test_killed_between_a_stage_and_its_evaluation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyvex.training import stages

    with monkeypatch.context() as patch:
        patch.setattr(stages, "evaluate_split", lambda *args, **kwargs: kill())
        with pytest.raises(Killed):
            run()
    resumed = run()
    assert all(resumed.evaluation(name).exists() for name in STAGES)


def test_killed_while_the_finished_model_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, registries: Registries
) -> None:
    # save_pretrained writes config.json first and the weights last; a run is finished when both are there.
    import transformers.modeling_utils as writer

    with monkeypatch.context() as patch:
        plain = writer.safe_save_file

        def half(tensors: dict[str, Tensor], path: str, *args: Any, **kwargs: Any) -> None:
            if any(name.startswith("encoders.") for name in tensors):
                raise Killed
            plain(tensors, path, *args, **kwargs)

        patch.setattr(writer, "safe_save_file", half)
        with pytest.raises(Killed):
            run(export=True)
    resumed = run(export=True)
    PolyvexForConditionalGeneration.from_pretrained(resumed.path, registries=registries)


def test_a_checkpoint_that_was_cut_short_is_not_gone_on_from(
    run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Killed while checkpoint 2 is written: what is there lacks its last file.
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 2, kill)
        with pytest.raises(Killed):
            run()
    checkpoint = tmp_path / "run" / "stages" / "1-tune" / "checkpoints" / "checkpoint-2"
    (checkpoint / "trainer_state.json").unlink()
    assert same(weights(whole_run[0], "2-experts"), weights(run(), "2-experts"))


def test_a_finished_run_has_nothing_to_do(run: Run, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(export=True)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*") if path.is_file()}
    monkeypatch.setattr(StageTrainer, "compute_loss", lambda *args, **kwargs: pytest.fail("trained again"))
    run(export=True)
    assert said[-1] == f"{first.path} is finished; nothing to do"
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*") if path.is_file()} == before


def test_a_run_without_export_can_be_exported_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run()
    assert not first.finished
    monkeypatch.setattr(StageTrainer, "compute_loss", lambda *args, **kwargs: pytest.fail("trained again"))
    assert run(export=True).finished


def test_a_stage_after_the_experts_goes_on_with_them(
    run: Run, tiny_tables: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [*tiny_tables()["stages"], {"name": "more", "trains": ["lm.moe"], "steps": 2, "batch_size": 4}]
    whole = run(stages=stages, out="whole")
    with monkeypatch.context() as patch:
        interrupt(patch, "more", 1, kill)
        with pytest.raises(Killed):
            run(stages=stages, out="cut")
    cut = run(stages=stages, out="cut")
    assert "lm.model.layers.0.mlp.router.weight" in weights(cut, "3-more")
    assert same(weights(whole, "3-more"), weights(cut, "3-more"))


# --- refusals --------------------------------------------------------------------------------------------------------


def test_the_run_of_another_recipe_is_refused_with_the_differences(run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    with pytest.raises(RunError) as caught:
        run("seed=3", "positions.use=share_all", **one_stage())
    assert str(caught.value) == (
        f"{first.path} is the run of another recipe:\n"
        "  - seed: 0 there, 3 here\n"
        "  - positions.use: 'share_row' there, 'share_all' here\n"
        "Choose another --out, or undo the change"
    )


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """The data table of a copy that a test may change."""
    shutil.copytree(tiny_data, tmp_path / "data")
    return {"use": "jsonl", "folder": str(tmp_path / "data")}


@pytest.mark.parametrize("what", ["question", "answer", "picture", "order"])
def test_a_run_does_not_go_on_with_other_data(what: str, run: Run, one_stage: Stage, own_data: dict[str, Any]) -> None:
    tables = {**one_stage(), "data": own_data}
    first = run(**tables)
    folder = Path(own_data["folder"])
    lines = (folder / "train.jsonl").read_text().splitlines()
    if what == "picture":
        name = json.loads(lines[0])["image"]
        shutil.copy(folder / json.loads(lines[-1])["image"], folder / name)
    elif what == "order":
        lines.reverse()
    else:
        lines[0] = json.dumps({**json.loads(lines[0]), what: "something else"})
    (folder / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunError, match=rf"^{first.path}: data_sha256 is .*, but the run began with "):
        run(**tables)


def test_a_run_does_not_go_on_with_other_weights(run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    lock = json.loads(first.lock.read_text())
    lock["weights_sha256"]["patchify"] = "another"
    first.lock.write_text(json.dumps(lock))
    with pytest.raises(RunError, match="weights_sha256 is "):
        run(**one_stage())


def test_a_folder_with_something_else_is_refused(run: Run, one_stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(RunError) as caught:
        run(**one_stage())
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is not empty and not a run (no recipe.toml). Choose another --out"
    )


def test_a_frozen_part_that_changes_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = StageTrainer.compute_loss

    def touch(self: StageTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        if self.stage.name == "experts":
            with torch.no_grad():
                model.fusion.rest[0][1].bias[0] += 1
        return plain(self, model, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", touch)
    with pytest.raises(TrainingError, match="stage experts: frozen weights of 'fusion' changed while it trained"):
        run()


def test_a_stage_that_moves_nothing_stops_the_run(run: Run, one_stage: Stage) -> None:
    with pytest.raises(TrainingError, match="stage tune: 'fusion' was to train, but its weights are as before"):
        run(**one_stage(lr=1e-30))


def test_upcycling_that_changes_the_logits_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyvex.training import upcycle

    plain = upcycle.install_experts

    def spoil(lm: Any, *args: Any, **kwargs: Any) -> list[str]:
        layers = plain(lm, *args, **kwargs)
        with torch.no_grad():
            lm.model.layers[0].mlp.experts.down.mul_(3)
        return layers

    monkeypatch.setattr(upcycle, "install_experts", spoil)
    with pytest.raises(TrainingError, match=r"^upcycling changed the logits by .*; copies of one FFN must not$"):
        run()


def test_raw_probabilities_may_change_the_logits(run: Run, said: Any) -> None:
    run("moe.router.renormalize=false")
    assert said.any_with("upcycled layers.0.mlp")


@pytest.mark.parametrize("layers", ["first_half", "second_half", "dense", "[1]"])
def test_upcycling_moves_no_logit_in_any_mode(layers: str, run: Run, said: Any) -> None:
    run(f"moe.layers={layers}")
    (line,) = [line for line in said if "logits moved by" in line]
    assert float(line.rsplit(" ", 1)[1]) < 1e-5


# --- data ------------------------------------------------------------------------------------------------------------


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
