"""transformers' Trainer for one stage: learning rates by part, losses by name, a stop that loses nothing."""

import contextlib
import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from polyvex.errors import StorageError, TrainingError
from polyvex.model.finite import not_finite
from polyvex.model.size import bytes_of
from polyvex.processes import Processes
from polyvex.progress import bar, show_beside
from polyvex.recipe.schema import Recipe, Stage
from polyvex.storage import space_for, write_text
from polyvex.training.checkpoints import KEPT, keep_newest, seal, steps_of
from polyvex.training.together import uses_cpu

WINDOW = "window.json"
"""File of a checkpoint with the losses summed since the last line of the log."""

SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def arguments(
    recipe: Recipe, stage: Stage, folder: Path, *, progress: bool, processes: Processes | None = None
) -> TrainingArguments:
    """A stage's settings as transformers names them; ``processes`` are those that train together."""
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        use_cpu=processes is not None and uses_cpu(processes),
        max_steps=stage.steps,
        per_device_train_batch_size=stage.batch_size // stage.accumulate,
        gradient_accumulation_steps=stage.accumulate,
        learning_rate=max(stage.lr.values()) if isinstance(stage.lr, dict) else stage.lr,
        lr_scheduler_type=SCHEDULERS[stage.schedule],
        warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        save_steps=recipe.training.checkpoint_every,
        save_total_limit=None,  # StageTrainer deletes old ones once the new one is verified
        logging_steps=recipe.training.log_every,
        logging_nan_inf_filter=False,
        seed=recipe.seed,
        data_seed=recipe.seed,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not progress,
    )


class StageTrainer(Trainer):
    """Trains the parameters that a stage selects, in one group per entry of its ``trains``.

    Args:
        load: reads a model as ``save_pretrained`` has written it.
    """

    def __init__(
        self,
        *args: Any,
        stage: Stage,
        trained: dict[str, list[str]],
        load: Callable[[Path], PreTrainedModel],
        **kwargs: Any,
    ):
        self.stage = stage
        self.trained = trained
        self.load = load
        self._sums: dict[str, float] = {}
        self._passes = 0
        self._since = 0
        super().__init__(*args, **kwargs)
        # Trainer leaves this switched off, also in what is stored; here each pass says whether it wants a cache.
        vars(self.model.config).pop("use_cache", None)  # type: ignore[union-attr]
        for printing in (PrinterCallback, ProgressCallback):
            self.remove_callback(printing)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW with each part's own learning rate."""
        if self.optimizer is None:
            parameters = dict(self.model.named_parameters())  # type: ignore[union-attr]
            rates = self.stage.lr if isinstance(self.stage.lr, dict) else dict.fromkeys(self.trained, self.stage.lr)
            groups = [
                {"params": [parameters[name] for name in names], "lr": rates[entry]}
                for entry, names in self.trained.items()
            ]
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.stage.weight_decay)
        return self.optimizer

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The model's own loss; its parts are kept for the log."""
        outputs = model(**inputs, num_items_in_batch=kwargs.get("num_items_in_batch"), use_cache=False)
        if not torch.isfinite(outputs.loss):
            spoilt = not_finite(model)
            told = f". {spoilt[0]} holds numbers that are not finite" if spoilt else ""
            raise TrainingError(
                f"stage {self.stage.name}: the loss is {outputs.loss.item()} at step {self.state.global_step}{told}"
            )
        # Items are counted over all processes and gradients averaged over them, so each counts for its number.
        counted = kwargs.get("num_items_in_batch") is not None and self.args.average_tokens_across_devices
        scale = self.accelerator.num_processes if counted else 1
        loss = outputs.loss * scale
        parts = {"loss": loss, "answer_loss": outputs.answer_loss * scale, **(outputs.aux or {})}
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._passes += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Means since the last line: ``loss`` and ``answer_loss`` per step, auxiliary losses per pass.

        ``loss`` is counted here too, since transformers forgets a window that a checkpoint falls into.
        """
        if self._passes and "loss" in logs:
            steps = self.state.global_step - self._since
            means = {
                name: value / (steps if name in ("loss", "answer_loss") else self._passes)
                for name, value in self._over_processes().items()
            }
            logs = {**logs, **means}
            self._sums, self._passes, self._since = {}, 0, self.state.global_step
        super().log(logs, *args, **kwargs)

    def _over_processes(self) -> dict[str, float]:
        """The sums since the last line, as means over the processes that train together."""
        if self.accelerator.num_processes == 1:
            return self._sums
        sums = torch.tensor(list(self._sums.values()), dtype=torch.float64, device=self.accelerator.device)
        means: Any = self.accelerator.reduce(sums, reduction="mean")
        return dict(zip(self._sums, means.tolist(), strict=True))

    def window(self) -> dict[str, Any]:
        """What was summed since the last line of the log, over all processes."""
        return {"sums": self._over_processes(), "passes": self._passes, "since": self._since}

    def go_on(self, checkpoint: Path | None) -> None:
        """Train from a checkpoint, or from the start; one that has all steps is loaded, and nothing is trained."""
        if checkpoint is None:
            self.train()
            return
        kept = json.loads((checkpoint / WINDOW).read_text(encoding="utf-8"))
        self._sums, self._passes, self._since = kept["sums"], kept["passes"], kept["since"]
        if steps_of(checkpoint) < self.args.max_steps:
            self.train(resume_from_checkpoint=str(checkpoint))
            return
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load every weight. transformers' own way skips those that the file stores under other names."""
        state = self.load(Path(resume_from_checkpoint)).state_dict()
        target: Any = self.model if model is None else model
        target.load_state_dict(state, strict=True)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint with the window of the log, and make it count once all of that is on the disk.

        Raises:
            StorageError: with the code ``disk-full``; then nothing of the checkpoint is left.
        """
        checkpoint = Path(self.args.output_dir or "") / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            with space_for(checkpoint, needed=bytes_of(self.accelerator.unwrap_model(self.model))):
                super()._save_checkpoint(*args, **kwargs)
                window = self.window()
                self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
                if self.args.should_save:
                    write_text(checkpoint / WINDOW, json.dumps(window))
                    seal(checkpoint)
        except StorageError:
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        if self.args.should_save:
            keep_newest(checkpoint.parent, KEPT)


class MetricsFile(TrainerCallback):
    """Append each logged line to ``metrics.jsonl``.

    The trainer's own state is what counts, and a checkpoint verifies it: the file is written anew from there where
    training begins and where it ends, so it has exactly the lines of an unbroken run.
    """

    def __init__(self, path: Path):
        self.path = path

    def write(self, state: TrainerState) -> None:
        """Replace the file by the lines of ``state``, in the first of several processes."""
        if state.is_world_process_zero:
            lines = [_line(logs) for logs in state.log_history if "loss" in logs]
            write_text(self.path, "".join(lines))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep what was logged up to the step that training starts from."""
        self.write(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line, in the first of several processes."""
        if logs and "loss" in logs and state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(_line({**logs, "step": state.global_step}))


def _line(logs: Mapping[str, float]) -> str:
    """The step, then the other values by name: the order in which the trainer's state has them is not kept."""
    return json.dumps({"step": logs["step"], **dict(sorted(logs.items()))}) + "\n"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file; none if there is no file."""
    if not path.exists():
        return []
    *whole, _cut = path.read_text(encoding="utf-8").split("\n")  # a kill may cut the last line
    return [json.loads(line) for line in whole if line]


class StageBar(TrainerCallback):
    """One progress bar per stage with the latest loss, in place of transformers' own printing."""

    def __init__(self, name: str):
        self.bar: tqdm | None = None
        self.name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar, from the step that training starts at."""
        self.bar = bar(desc=f"stage {self.name}", unit="step", total=state.max_steps, initial=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move on by one."""
        if self.bar is not None:
            self.bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            show_beside(self.bar, loss=f"{float(logs['loss']):.3f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


class StopSoftly(TrainerCallback):
    """Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint, and stops. A second one stops at once."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSoftly":
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # outside the main thread there is no Ctrl-C to catch
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop, if asked to."""
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True
