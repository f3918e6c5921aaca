"""Run a recipe's stages in order; go on where an earlier run stopped."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from polyvex.assemble import build_model, check_context, empty_model, use_attention
from polyvex.data.batches import Collator, ExampleDataset
from polyvex.errors import RecipeError, RunError, TrainingError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.manifest import Manifest
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.finite import not_finite
from polyvex.model.size import bytes_of
from polyvex.model.start import spoilt_weights, unlike
from polyvex.model.stored import loading
from polyvex.recipe.schema import Recipe, Stage
from polyvex.recipe.start import Start, settled, start_of
from polyvex.rundir import RunDirectory, StageDirectory, changed_files, read_json, store_whole
from polyvex.storage import replace_folder, space_for, write_text
from polyvex.training.abilities import proven
from polyvex.training.checkpoints import keep_newest, newest_whole
from polyvex.training.evaluate import describe, evaluate_split, has_evaluation
from polyvex.training.lock import other_encoders
from polyvex.training.parts import check_hashes, freeze_all_but, hashes, selected
from polyvex.training.rehearse import rehearse, unread_experts
from polyvex.training.session import Say, Session, open_session, processor_files
from polyvex.training.together import join, wait
from polyvex.training.trainer import MetricsFile, StageBar, StageTrainer, StopSoftly, arguments
from polyvex.training.upcycle import upcycle

STARTS, NOT_AS_THERE = "starts from", "NOT AS THERE"
"""How the lines begin that tell of another run whose weights this one begins with."""


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Training was asked to stop and has saved a checkpoint."""


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    registries: Registries | None = None,
    cache: str | Path | None = None,
    say: Say = print,
    progress: bool = True,
    export: bool = True,
) -> RunDirectory:
    """Train all stages of ``recipe`` into the directory ``out``, evaluate as it says, and store the finished model.

    Called again on the same directory, it goes on after the last finished stage, or inside a stage from its last
    checkpoint.

    Args:
        cache: folder of the token cache; the usual one if not given.
        say: gets each line for people.
        export: store the finished model with its encoders, so that it can be asked; ablations need no such copy.

    Raises:
        DataError: if a sample does not fit the context, or too many images cannot be read.
        RecipeError: if a stage cannot work, or what the recipe starts from is not there or does not fit.
        RunError: if ``out`` belongs to another recipe, another process is training there, stored files changed, or
            the processes that a launcher started would train apart.
        Stopped: after Ctrl-C, once a checkpoint is written.
    """
    registries = registries or load_registries()
    processes = join()
    run = RunDirectory(Path(out))
    recipe = settled(recipe.located(), run.path)
    start = start_of(recipe, run.path)
    check_context(recipe, registries)
    model = empty_model(recipe, registries)
    if problems := rehearse(recipe, registries, model, start=start):
        raise RecipeError(problems, source=recipe.name)
    run.check(recipe)
    _try_fusion_weights(recipe, registries, run, model)
    _try_start(recipe, run)
    with space_for(run.path), run.alone():
        resumed = run.check(recipe)  # once more: another process may have trained here meanwhile
        session = open_session(
            recipe, registries, run, start=start, cache=cache, processes=processes, say=say, progress=progress
        )
        _run_stages(session, resumed=resumed, export=export)
        wait(processes)
    return run


def _try_fusion_weights(
    recipe: Recipe, registries: Registries, run: RunDirectory, model: PolyvexForConditionalGeneration
) -> None:
    """Load the weights that the fusion names once before images are encoded, so that wrong ones cost no time."""
    named = registries.fusions[recipe.fusion.use].weights(recipe.fusion) is not None
    if named and recipe.start is None and run.stage(0, recipe.stages[0]).done() is None:
        model.fusion.to_empty(device="cpu").load_pretrained()


def _try_start(recipe: Recipe, run: RunDirectory) -> None:
    """Look through the weights that the first stage begins with, so that changed or spoilt ones cost no time."""
    start = start_of(recipe, run.path) if run.stage(0, recipe.stages[0]).done() is None else None
    if start is not None and (spoilt := spoilt_weights(start)):
        raise TrainingError(f"[start]: {start}, holds numbers that are not finite: {', '.join(spoilt[:4])}")
    if start is not None and not run.lock.exists():  # a run that has begun compares them with its lock first
        _check_start(start)


def _check_start(start: Start) -> None:
    """Refuse the weights of another run if they are not as they were stored there."""
    if faults := start.faults():
        raise changed_files(start.model, faults, "start from another run, or train that one again")


def _run_stages(session: Session, *, resumed: bool, export: bool) -> None:
    recipe, run, say = session.recipe, session.run, session.say
    if resumed and run.finished:
        run.check_finished()
        say(f"{run.path} is finished; nothing to do")
        return
    _check_order(run, recipe)
    model: PolyvexForConditionalGeneration | None = None
    for index, stage in enumerate(recipe.stages):
        folder = run.stage(index, stage)
        if folder.done() is None:
            model = _run_stage(session, index, stage, model)
        else:
            say(f"stage {stage.name}: done before")
            model = None
        _evaluate_after(session, index, stage, model)
    if export:
        _finish(session, model)


def _check_order(run: RunDirectory, recipe: Recipe) -> None:
    """Refuse a stage that is stored while one before it is not: it would not have been trained from that."""
    folders = [run.stage(index, stage) for index, stage in enumerate(recipe.stages)]
    done = [folder.done() is not None for folder in folders]
    first = done.index(False) if False in done else len(done)
    if stale := [str(folder.path) for folder, is_done in zip(folders, done, strict=True) if is_done][first:]:
        raise RunError(
            f"{folders[first].path} has no finished stage, but {', '.join(stale)} has. Restore the first, or delete "
            f"the others, so that they are trained from it again",
            code="stages-out-of-order",
        )


def _run_stage(
    session: Session, index: int, stage: Stage, model: PolyvexForConditionalGeneration | None
) -> PolyvexForConditionalGeneration:
    folder = session.run.stage(index, stage)
    folder.path.mkdir(parents=True, exist_ok=True)
    model = model or _model_before(session, index)
    if stage.upcycle:
        upcycle(session, model)
    if spoilt := not_finite(model):
        raise TrainingError(
            f"stage {stage.name}: {', '.join(spoilt[:4])} hold numbers that are not finite. Nothing can be learned "
            f"from there; take other weights"
        )
    trained = selected(model, stage.trains)
    freeze_all_but(model, trained)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    session.say(f"stage {stage.name}: {', '.join(stage.trains)} train ({count:,} parameters), {stage.steps} steps")
    before, started = hashes(model, trained), time.perf_counter()
    trainer = _trainer(session, stage, folder, model, trained)
    with StopSoftly() as stop:
        trainer.add_callback(stop)
        trainer.go_on(newest_whole(folder.checkpoints, remove=session.processes.first, say=session.say))
    if stop.stopped and trainer.state.global_step < stage.steps:
        raise Stopped(f"stopped at step {trainer.state.global_step} of stage {stage.name}; a checkpoint is saved")
    after = hashes(model, trained)
    for line in check_hashes(before, after, stage=stage.name, may_idle=model.fusion.routes):
        session.say(line)
    record = {
        "stage": stage.name,
        "steps": stage.steps,
        "seconds": time.perf_counter() - started,
        "trained_parameters": count,
        "hashes_before": before,
        "hashes_after": after,
    }
    if session.processes.first:
        _store_stage(folder, trainer, model, record)
    wait(session.processes)
    if stop.stopped:
        raise Stopped(f"stopped after stage {stage.name}, which is stored")
    return model


def _store_stage(
    folder: StageDirectory, trainer: StageTrainer, model: PolyvexForConditionalGeneration, record: dict[str, Any]
) -> None:
    """Store the model of a stage, then the record that makes the stage count, with the checksums of the model."""
    MetricsFile(folder.metrics).write(trainer.state)
    replace_folder(folder.model, model.save_pretrained, needed=bytes_of(model))
    folder.finish({**record, "files": Manifest.of(folder.model).model_dump()})
    keep_newest(folder.checkpoints, 1)


def _trainer(
    session: Session,
    stage: Stage,
    folder: StageDirectory,
    model: PolyvexForConditionalGeneration,
    trained: dict[str, list[str]],
) -> StageTrainer:
    context = model.context_length
    tokenizer, reader = session.processor.tokenizer, session.reader
    trainer = StageTrainer(
        model=model,
        args=arguments(session.recipe, stage, folder.path, progress=session.progress, processes=session.processes),
        train_dataset=ExampleDataset(
            session.data.train, session.processor.prompts, images=stage.images, context=context, count=reader.count
        ),
        data_collator=Collator(pad=tokenizer.pad_token_id, read_images=reader, pack=session.recipe.training.pack),
        callbacks=[MetricsFile(folder.metrics), *([StageBar(stage.name)] if session.progress else [])],
        stage=stage,
        trained=trained,
        load=partial(PolyvexForConditionalGeneration.from_pretrained, registries=session.registries),
    )
    return trainer


def _model_before(session: Session, index: int) -> PolyvexForConditionalGeneration:
    """The model that a stage starts from: the stage's before, or a fresh one."""
    if index == 0:
        start = start_of(session.recipe)
        if start is None and not session.registries.language_models[session.recipe.lm.use].pretrained:
            session.say(f"the language model '{session.recipe.lm.use}' starts from RANDOM weights")
        model, reports = build_model(session.recipe, session.processor, session.registries, encoders=False)
        for name, report in reports.items():
            session.say(f"weights of {name}: {report}")
        if start is not None:
            _check_start(start)
            _tell_start(session, start, model)
        if unread_experts(model.lm) and session.recipe.loss.load_balance:
            session.say("the language model's own experts train WITHOUT a load-balancing loss")
        _check_first_weights(session, model)
        if problems := proven(session.recipe, model.lm):
            raise RecipeError(problems, source=session.recipe.name)
        return model
    earlier = session.run.stage(index - 1, session.recipe.stages[index - 1])
    earlier.check_model()
    with loading(earlier.model):
        stored = PolyvexForConditionalGeneration.from_pretrained(earlier.model, registries=session.registries)
    use_attention(stored.lm, session.recipe.lm.attention)
    return stored


def _tell_start(session: Session, start: Start, model: PolyvexForConditionalGeneration) -> None:
    """What the run starts from, and whatever gives the weights of there another meaning here."""
    digests = session.data.cache.weights_sha256
    own = {name: digest for name, digest in digests.items() if name not in start.brings}
    session.say(f"{STARTS} {start}")
    for line in [*unlike(session.recipe, model, start), *other_encoders(start, own)]:
        session.say(f"{NOT_AS_THERE}: {line}")


def _check_first_weights(session: Session, model: PolyvexForConditionalGeneration) -> None:
    """A run that goes on inside its first stage must start from the language model that it began with."""
    path = session.run.path / "first_weights.json"
    now = {part: kinds for part, kinds in hashes(model).items() if part == "lm"}
    if not path.exists():
        if session.processes.first:
            write_text(path, json.dumps(now, indent=2))
    elif read_json(path) != now:
        raise RunError(
            f"{session.run.path}: the weights of the language model are not those that the run began with. Bring "
            f"them back, or choose another --out"
        )


def _evaluate_after(session: Session, index: int, stage: Stage, model: PolyvexForConditionalGeneration | None) -> None:
    when = session.recipe.evaluation.after
    last = index == len(session.recipe.stages) - 1
    name = f"{index}-{stage.name}"
    if when == "never" or (when == "last_stage" and not last) or has_evaluation(session.run, name):
        return
    if model is None:
        model = _model_before(session, index + 1)
    result = evaluate_split(session, model, name=name, images=stage.images)
    session.say(describe(result))


def _finish(session: Session, model: PolyvexForConditionalGeneration | None) -> None:
    """Store the finished model with its encoders in the run itself."""
    if not session.processes.first:
        return
    model = model or _model_before(session, len(session.recipe.stages))
    for name, report in model.attach_encoders(session.registries).items():
        session.say(f"encoder {name}: {report}")
    files = store_whole(session.run.path, model.save_pretrained, last="config.json", needed=bytes_of(model))
    session.run.finish(files | (processor_files(session.run) or Manifest(files={})))
    session.say(f"finished: {session.run.path}")
