"""One stage's settings, metrics, and the soft stop."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from polyvex.errors import TrainingError
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory
from polyvex.training.trainer import MetricsFile, StageTrainer, StopSoftly, arguments, read_metrics

Run = Callable[..., RunDirectory]
Stage = Callable[..., dict[str, Any]]
NOBODY: Any = SimpleNamespace()


def metrics_of(run: RunDirectory, name: str = "0-tune") -> list[dict[str, float]]:
    return read_metrics(run.path / "stages" / name / "metrics.jsonl")


def weights_of(run: RunDirectory, name: str = "0-tune") -> dict[str, torch.Tensor]:
    return load_file(run.path / "stages" / name / "model" / "model.safetensors")


def test_settings_reach_transformers(tiny_recipe: Callable[..., Recipe], one_stage: Stage, tmp_path: Path) -> None:
    tables = one_stage(
        batch_size=6, accumulate=3, warmup=2, schedule="linear", weight_decay=0.1, max_grad_norm=0.5, lr=0.02
    )
    recipe = tiny_recipe("seed=7", **tables)
    given = arguments(recipe, recipe.stages[0], tmp_path, progress=False)
    assert (given.per_device_train_batch_size, given.gradient_accumulation_steps, given.max_steps) == (2, 3, 4)
    assert (given.learning_rate, given.warmup_steps, given.weight_decay, given.max_grad_norm) == (0.02, 2, 0.1, 0.5)
    assert (given.seed, given.data_seed, given.save_steps, given.logging_steps) == (7, 7, 2, 1)
    assert given.lr_scheduler_type == "linear"


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        # What a step is made with is logged with it; 4 steps at a peak of 0.01.
        ("constant", 0, [0.01, 0.01, 0.01, 0.01]),
        ("constant", 2, [0.0, 0.005, 0.01, 0.01]),
        ("linear", 0, [0.01, 0.0075, 0.005, 0.0025]),
        # (1 + cos(π · t / 4)) / 2: 1, .8536, .5, .1464.
        ("cosine", 0, [0.01, 0.008536, 0.005, 0.001464]),
    ],
)
def test_learning_rates_by_hand(schedule: str, warmup: int, rates: list[float], run: Run, one_stage: Stage) -> None:
    lines = metrics_of(run(**one_stage(schedule=schedule, warmup=warmup, lr=0.01)))
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates, abs=1e-6)


def test_each_part_has_its_own_rate(run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[tuple[float, int]] = []
    plain = StageTrainer.create_optimizer

    def spy(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = plain(self, *args, **kwargs)
        groups[:] = [(group["lr"], sum(one.numel() for one in group["params"])) for group in optimizer.param_groups]
        return optimizer

    monkeypatch.setattr(StageTrainer, "create_optimizer", spy)
    run(**one_stage(lr={"connector": 1e-2, "lm": 1e-4}))
    connector, lm = groups
    # Connector: 8·32 + 32 + 6·32 + 32 + 32·32 + 32 = 1568 numbers.
    assert connector == (1e-2, 1568)
    assert lm[0] == 1e-4
    assert lm[1] > 1568


def test_a_small_rate_moves_its_part_less(run: Run, one_stage: Stage) -> None:
    # AdamW's first steps are about as long as the rate, whatever the gradient.
    before = weights_of(run(**one_stage(lr=1e-6), out="still"))
    after = weights_of(run(**one_stage(lr={"connector": 1e-2, "lm": 1e-5}, schedule="constant"), out="moved"))
    gaps = {name: (after[name] - before[name]).abs().max().item() for name in before}
    assert gaps["fusion.rest.0.1.weight"] > 1e-2
    assert max(gap for name, gap in gaps.items() if name.startswith("lm.")) < 1e-4


def test_accumulated_steps_are_large_steps(run: Run, one_stage: Stage) -> None:
    whole, parts = run(**one_stage(), out="whole"), run(**one_stage(accumulate=4), out="parts")
    first, second = weights_of(whole), weights_of(parts)
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-4), name
    for one, other in zip(metrics_of(whole), metrics_of(parts), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        # The log's own mean of the answer loss must not be four times too small.
        assert one["answer_loss"] == pytest.approx(other["answer_loss"], rel=1e-4)


def test_logged_losses_are_means_over_the_steps_between(run: Run, one_stage: Stage) -> None:
    every = metrics_of(run(**one_stage(), out="every"))
    pairs = metrics_of(run(**one_stage(), training={"log_every": 2}, out="pairs"))
    assert [line["step"] for line in pairs] == [2, 4]
    for place, line in enumerate(pairs):
        for name in ("loss", "answer_loss"):
            mean = (every[2 * place][name] + every[2 * place + 1][name]) / 2
            assert line[name] == pytest.approx(mean, rel=1e-4)


def test_a_dense_loss_is_its_answer_loss(run: Run, one_stage: Stage) -> None:
    for line in metrics_of(run(**one_stage())):
        assert line["loss"] == pytest.approx(line["answer_loss"], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_stage_and_step(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyvex.model import modeling

    plain, calls = modeling.ForCausalLMLoss, []

    def turn_bad(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        return plain(*args, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(modeling, "ForCausalLMLoss", turn_bad)
    with pytest.raises(TrainingError, match=r"^stage tune: the loss is nan at step 2$"):
        run(**one_stage())


def test_metrics_of_no_file_are_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_metrics_past_the_step_that_training_goes_on_from_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3)))
    state = TrainerState(global_step=2, log_history=[{"loss": 1.0, "step": step} for step in (1, 2)])
    callback = MetricsFile(path)
    callback.on_train_begin(NOBODY, state, TrainerControl())
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    state.global_step = 3
    callback.on_log(NOBODY, state, TrainerControl(), logs={"loss": 0.5})
    callback.on_log(NOBODY, state, TrainerControl(), logs={"train_runtime": 0.5})
    assert read_metrics(path)[2:] == [{"step": 3, "loss": 0.5}]


@pytest.mark.parametrize("content", ["", '{"step": 1, "loss": 1.0}\n{"step": 2, "lo', "\0\0\0\n"])
def test_metrics_that_a_kill_has_cut_are_those_of_the_checkpoint_again(content: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    state = TrainerState(global_step=2, log_history=[{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}])
    MetricsFile(path).on_train_begin(NOBODY, state, TrainerControl())
    assert read_metrics(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]


def test_metrics_have_the_same_bytes_whether_logged_or_restored(tmp_path: Path) -> None:
    logs = {"loss": 0.1, "grad_norm": 1 / 3, "answer_loss": 0.2}
    state = TrainerState(global_step=1)
    logged, restored = tmp_path / "logged", tmp_path / "restored"
    MetricsFile(logged).on_log(NOBODY, state, TrainerControl(), logs=logs)
    state.log_history = [dict(sorted({**logs, "step": 1}.items()))]
    MetricsFile(restored).write(state)
    assert logged.read_bytes() == restored.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_then_saves_and_stops(number: signal.Signals) -> None:
    control = TrainerControl()
    with StopSoftly() as stop:
        stop.on_step_end(NOBODY, TrainerState(), control)
        assert not control.should_training_stop
        os.kill(os.getpid(), number)
        stop.on_step_end(NOBODY, TrainerState(), control)
    assert stop.stopped
    assert control.should_save
    assert control.should_training_stop


def test_a_second_signal_stops_at_once() -> None:
    with StopSoftly():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSoftly():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def inside() -> bool:
        with StopSoftly() as stop:
            return stop.stopped

    with ThreadPoolExecutor() as pool:
        assert pool.submit(inside).result() is False


def test_the_last_small_group_of_an_epoch_counts_as_one_step(run: Run, one_stage: Stage, tiny_data: Path) -> None:
    # 5 samples in groups of 4 passes of one: the second step has a single pass, and the mean is over two steps.
    data = {"use": "jsonl", "folder": str(tiny_data), "train_limit": 5}
    stage = one_stage(batch_size=4, accumulate=4, steps=4)
    each = metrics_of(run(**stage, data=data, out="each"))
    pairs = metrics_of(run(**stage, data=data, training={"log_every": 2}, out="pairs"))
    assert [line["step"] for line in pairs] == [2, 4]
    for line, first, second in zip(pairs, each[::2], each[1::2], strict=True):
        for name in ("loss", "answer_loss"):
            assert line[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-5)


def test_weight_decay_reaches_the_optimizer(run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    plain = StageTrainer.create_optimizer

    def spy(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = plain(self, *args, **kwargs)
        seen.extend(group["weight_decay"] for group in optimizer.param_groups)
        return optimizer

    monkeypatch.setattr(StageTrainer, "create_optimizer", spy)
    run(**one_stage(weight_decay=0.25, steps=1))
    assert set(seen) == {0.25}


def test_with_several_processes_the_loss_is_scaled_as_transformers_scales_it(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Items are counted over all processes and gradients averaged over them: each must count for its number.
    plain, seen = StageTrainer.compute_loss, []

    def spy(self: StageTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        losses = []
        for count in (1, 2):
            monkeypatch.setattr(type(self.accelerator), "num_processes", count)
            losses.append(plain(self, model, inputs, *args, **kwargs))
        monkeypatch.setattr(type(self.accelerator), "num_processes", 1)
        seen.append((losses[1] / losses[0]).item())
        return losses[0]

    monkeypatch.setattr(StageTrainer, "compute_loss", spy)
    run(**one_stage(steps=1))
    assert seen == pytest.approx([2.0])
