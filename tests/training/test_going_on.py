"""Going on after any stop ends as if nothing had happened, or says why it cannot."""

import builtins
import json
import os
import shutil
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polyvex.errors import RunError, StorageError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.recipe import Recipe
from polyvex.rundir import BUSY, RunDirectory
from polyvex.training.stages import Stopped
from polyvex.training.trainer import StageTrainer

from .runs import STAGES, Killed, Run, Stage, Whole, curve, interrupt, kill, record, same, weights


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


@pytest.mark.parametrize("where", ["_store_stage", "check_hashes"])
def test_a_stage_with_all_its_steps_is_loaded_and_not_trained_further(
    where: str, run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Killed between the last checkpoint and done.json.
    from polyvex.training import stages

    with monkeypatch.context() as patch:
        patch.setattr(stages, where, lambda *args, **kwargs: kill())
        with pytest.raises(Killed):
            run()
    steps: list[tuple[str, int]] = []
    plain = StageTrainer.compute_loss

    def spy(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        steps.append((self.stage.name, self.state.global_step))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", spy)
    resumed = run()
    assert [step for name, step in steps if name == "align"] == []
    for stage_name in STAGES:
        assert same(weights(whole_run[0], stage_name), weights(resumed, stage_name)), stage_name
        assert curve(whole_run[0], stage_name) == curve(resumed, stage_name), stage_name
    there, here = (record(one, "0-align") for one in (whole_run[0], resumed))
    assert {**there, "seconds": 0} == {**here, "seconds": 0}


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "model.safetensors", "window.json"])
def test_a_damaged_checkpoint_does_not_block_a_run(
    name: str, run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Any
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 2, kill)
        with pytest.raises(Killed):
            run()
    checkpoint = tmp_path / "run" / "stages" / "1-tune" / "checkpoints" / "checkpoint-2"
    (checkpoint / name).write_bytes(b"")
    assert same(weights(whole_run[0], "2-experts"), weights(run(), "2-experts"))
    assert said.any_with(f"checkpoint-2 is damaged and not used: {name} has 0 bytes instead of ")


def test_the_checkpoint_before_is_kept_until_the_stage_is_stored(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tables = {**one_stage(), "training": {"checkpoint_every": 1}}
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 3, kill)
        with pytest.raises(Killed):
            run(**tables)
    folder = tmp_path / "run" / "stages" / "0-tune" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    (folder / "checkpoint-3" / "optimizer.pt").write_bytes(b"")
    seen: list[int] = []
    interrupt(monkeypatch, "tune", 2, lambda: seen.append(2))
    run(**tables)
    assert seen == [2]
    assert [path.name for path in folder.iterdir()] == ["checkpoint-4"]


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
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*") if path.is_file() and path.name != BUSY}
    monkeypatch.setattr(StageTrainer, "compute_loss", lambda *args, **kwargs: pytest.fail("trained again"))
    run(export=True)
    assert said[-1] == f"{first.path} is finished; nothing to do"
    assert {path: path.stat().st_mtime_ns for path in before} == before


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


def test_a_window_of_the_log_survives_a_stop(run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {**one_stage(steps=6), "training": {"checkpoint_every": 2, "log_every": 5}}
    unbroken = run(**tables, out="unbroken")
    for action, error in ((kill, Killed), (lambda: os.kill(os.getpid(), signal.SIGINT), Stopped)):
        with monkeypatch.context() as patch:
            interrupt(patch, "tune", 3, action)
            with pytest.raises(error):
                run(**tables, out=error.__name__)
        assert curve(run(**tables, out=error.__name__), "0-tune") == curve(unbroken, "0-tune")


def test_ctrl_c_in_the_last_step_stores_the_stage_and_stops(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "align", 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped, match="stopped after stage align, which is stored"):
            run()
    first = run()
    assert record(first, "0-align")["steps"] == 3


def test_a_run_does_not_go_on_with_another_language_model(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyvex.lm.small_llama import SmallLlama

    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 2, kill)
        with pytest.raises(Killed):
            run(**one_stage())
    plain = SmallLlama.load

    def load(self: SmallLlama, config: Any) -> Any:
        model = plain(self, config)
        with torch.no_grad():
            model.lm_head.weight[0] += 1
        return model

    monkeypatch.setattr(SmallLlama, "load", load)
    with pytest.raises(RunError, match="the weights of the language model are not those that the run began with"):
        run(**one_stage())


def test_other_versions_are_told(run: Run, one_stage: Stage, said: Any) -> None:
    first = run(**one_stage())
    lock = json.loads(first.lock.read_text())
    lock["libraries"]["torch"] = "1.0"
    first.lock.write_text(json.dumps(lock))
    run(**one_stage())
    assert said.any_with(f"NOT AS BEFORE: libraries.torch: '1.0' there, '{version('torch')}' here")


@pytest.mark.parametrize("name", ["config.json", "processor_config.json"])
def test_killed_while_a_file_that_transformers_reads_is_half_written(
    name: str, run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    # transformers opens its files for writing where they stand: a kill leaves them empty.
    io_open = builtins.open

    def open_and_die(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if str(file).endswith(f"/{name}") and "w" in mode and "/stages/" not in str(file):
            io_open(file, mode).close()
            raise Killed
        return io_open(file, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", open_and_die)
        with pytest.raises(Killed):
            run(export=True)
    resumed = run(export=True)
    assert same(weights(whole_run[0], "2-experts"), weights(resumed, "2-experts"))
    assert not [path for path in resumed.path.iterdir() if path.name.endswith(".store")]


def test_a_start_that_failed_while_it_wrote_binds_nothing(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("polyvex.storage.os.replace", fail)
        with pytest.raises(StorageError) as caught:
            run(**one_stage())
    assert caught.value.code == "disk-full"
    (run(**one_stage()).path / "recipe.toml.part").touch()
    assert run(**one_stage()).recipe.exists()


def test_data_that_moved_goes_on(run: Run, one_stage: Stage, own_data: dict[str, Any], tmp_path: Path) -> None:
    run(**{**one_stage(), "data": own_data})
    moved = shutil.move(own_data["folder"], tmp_path / "elsewhere")
    again = run(**{**one_stage(), "data": {**own_data, "folder": f"{tmp_path}/x/../elsewhere"}})
    assert f'folder = "{moved}"' in again.recipe.read_text()


def test_another_process_that_trained_meanwhile_is_noticed(
    run: Run, one_stage: Stage, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = RunDirectory.alone

    def alone(self: RunDirectory) -> Any:
        self.begin(tiny_recipe("seed=7", **one_stage()))
        return plain(self)

    monkeypatch.setattr(RunDirectory, "alone", alone)
    with pytest.raises(RunError, match="seed: 7 there, 0 here"):
        run(**one_stage())
