"""Run a recipe's stages in order; go on where an earlier run stopped."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polyvex.build import build_model, make_processor
from polyvex.data.batches import Collator, ExampleDataset
from polyvex.data.texts import training_texts
from polyvex.errors import RunError, TrainingError
from polyvex.evaluation.evaluate import Evaluation, evaluate
from polyvex.hooks.manager import Registries, load_registries
from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor
from polyvex.moe.upcycle import install_experts
from polyvex.recipe.schema import Recipe, Stage
from polyvex.training.lock import make_lock
from polyvex.training.parts import check_hashes, freeze_all_but, hashes, selected
from polyvex.training.prepare import Prepared, prepare
from polyvex.training.routing import expert_load
from polyvex.training.rundir import RunDirectory, StageDirectory, write_whole
from polyvex.training.trainer import MetricsFile, StageTrainer, StopSoftly, arguments

Say = Callable[[str], None]


class Stopped(Exception):
    """Training was asked to stop and has saved a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What every stage of one run needs."""

    recipe: Recipe
    registries: Registries
    run: RunDirectory
    data: Prepared
    processor: PolyvexProcessor
    say: Say
    progress: bool


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    registries: Registries | None = None,
    cache: str | Path | None = None,
    say: Say = print,
    progress: bool = True,
) -> RunDirectory:
    """Train all stages of ``recipe`` into the directory ``out``, evaluate as it says, and store the finished model.

    Called again on the same directory, it goes on after the last finished stage, or inside a stage from its last
    checkpoint.

    Raises:
        RunError: if ``out`` belongs to another recipe.
        Stopped: after Ctrl-C, once a checkpoint is written.
    """
    registries = registries or load_registries()
    run = RunDirectory(Path(out))
    resumed = run.prepare(recipe)
    session = _open_session(recipe, registries, run, cache=cache, say=say, progress=progress)
    if resumed and run.finished:
        say(f"{run.path} is finished; nothing to do")
        return run
    model: PolyvexForConditionalGeneration | None = None
    for index, stage in enumerate(recipe.stages):
        folder = run.stage(index, stage)
        if folder.done() is None:
            model = _run_stage(session, index, stage, model)
        else:
            say(f"stage {stage.name}: done before")
            model = None
        _evaluate_after(session, index, stage, model)
    _finish(session, model)
    return run


def _open_session(
    recipe: Recipe, registries: Registries, run: RunDirectory, *, cache: str | Path | None, say: Say, progress: bool
) -> Session:
    data = prepare(recipe, registries, folder=cache, progress=progress)
    say(str(data.report))
    if data.skipped_train or data.skipped_test:
        say(f"LEFT OUT: {data.skipped_train} training and {data.skipped_test} test samples with unreadable images")
    if not registries.language_models[recipe.lm.use].pretrained:
        say(f"the language model '{recipe.lm.use}' starts from RANDOM weights")
    if (run.path / "processor_config.json").exists():
        processor = PolyvexProcessor.from_pretrained(run.path, registries=registries)
    else:
        processor = make_processor(recipe, registries, training_texts(recipe, registries))
        processor.save_pretrained(run.path)
    lock = make_lock(recipe, registries, [*data.train, *data.test], data.cache)
    _check_lock(run, lock)
    return Session(
        recipe=recipe, registries=registries, run=run, data=data, processor=processor, say=say, progress=progress
    )


def _check_lock(run: RunDirectory, lock: dict[str, Any]) -> None:
    """Weights and data must be those that the run began with: a run must not go on with others."""
    if run.lock.exists():
        before = json.loads(run.lock.read_text(encoding="utf-8"))
        for key in ("weights_sha256", "data_sha256"):
            if before[key] != lock[key]:
                raise RunError(
                    f"{run.path}: {key} is {lock[key]}, but the run began with {before[key]}. Choose another --out"
                )
    else:
        write_whole(run.lock, json.dumps(lock, indent=2))


def _run_stage(
    session: Session, index: int, stage: Stage, model: PolyvexForConditionalGeneration | None
) -> PolyvexForConditionalGeneration:
    recipe, folder = session.recipe, session.run.stage(index, stage)
    folder.path.mkdir(parents=True, exist_ok=True)
    model = model or _model_before(session, index)
    if stage.upcycle:
        upcycle(model, recipe, session.registries, session.data, session.processor)
    trained = selected(model, stage.trains)
    freeze_all_but(model, trained)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    session.say(f"stage {stage.name}: {', '.join(stage.trains)} train ({count:,} parameters), {stage.steps} steps")
    before, started = hashes(model), time.perf_counter()
    trainer = _trainer(session, stage, folder, model, trained)
    with StopSoftly() as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    if stop.stopped and trainer.state.global_step < stage.steps:
        raise Stopped(f"stopped at step {trainer.state.global_step} of stage {stage.name}; a checkpoint is saved")
    after = hashes(model)
    check_hashes(before, after, stage=stage.name)
    model.save_pretrained(folder.model)
    folder.finish(
        {
            "stage": stage.name,
            "steps": stage.steps,
            "seconds": time.perf_counter() - started,
            "trained_parameters": count,
            "hashes_before": before,
            "hashes_after": after,
        }
    )
    return model


def _trainer(
    session: Session,
    stage: Stage,
    folder: StageDirectory,
    model: PolyvexForConditionalGeneration,
    trained: dict[str, list[str]],
) -> StageTrainer:
    context = model.lm.config.max_position_embeddings
    tokenizer = session.processor.tokenizer
    trainer = StageTrainer(
        model=model,
        args=arguments(session.recipe, stage, folder.path, progress=session.progress),
        train_dataset=ExampleDataset(
            session.data.train, session.processor.prompts, images=stage.images, context=context
        ),
        data_collator=Collator(pad=tokenizer.pad_token_id, read_tokens=session.data.cache.tokens),
        callbacks=[MetricsFile(folder.metrics)],
        stage=stage,
        trained=trained,
    )
    return trainer


def _last_checkpoint(folder: StageDirectory) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    checkpoints = folder.path / "checkpoints"
    return get_last_checkpoint(str(checkpoints)) if checkpoints.exists() else None


def _model_before(session: Session, index: int) -> PolyvexForConditionalGeneration:
    """The model that a stage starts from: the stage's before, or a fresh one."""
    if index == 0:
        model, _ = build_model(session.recipe, session.processor, session.registries, encoders=False)
        return model
    earlier = session.run.stage(index - 1, session.recipe.stages[index - 1])
    return PolyvexForConditionalGeneration.from_pretrained(earlier.model, registries=session.registries)


def upcycle(
    model: PolyvexForConditionalGeneration,
    recipe: Recipe,
    registries: Registries,
    data: Prepared,
    processor: PolyvexProcessor,
) -> None:
    """Turn the chosen FFNs into experts, and check that the model still says what it said.

    Raises:
        TrainingError: if the logits changed although the router's weights sum to one.
    """
    if recipe.moe is None:
        raise TrainingError(f"a stage upcycles, but the recipe {recipe.name} has no [moe]")
    router = recipe.moe.router
    kind = registries.routers[router.use]
    probe = _probe(data, processor, context=model.lm.config.max_position_embeddings)
    model.eval()
    with torch.no_grad():
        dense = model(**probe).logits
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            install_experts(model.lm, recipe.moe, (kind, router), copy=True)
        sparse = model(**probe).logits
    model.config.moe = recipe.moe.model_dump()
    gap = (dense - sparse).abs().max().item()
    if kind.weights_sum_to_one(router) and gap > 1e-3:
        raise TrainingError(f"upcycling changed the logits by {gap:.2e}; copies of one FFN must not")


def _probe(data: Prepared, processor: PolyvexProcessor, *, context: int) -> dict[str, Any]:
    samples = data.train[:4]
    dataset = ExampleDataset(samples, processor.prompts, images=True, context=context)
    batch = Collator(pad=processor.tokenizer.pad_token_id, read_tokens=data.cache.tokens)(
        [dataset[i] for i in range(len(samples))]
    )
    batch.pop("labels")
    return batch


def _evaluate_after(session: Session, index: int, stage: Stage, model: PolyvexForConditionalGeneration | None) -> None:
    when = session.recipe.evaluation.after
    last = index == len(session.recipe.stages) - 1
    name = f"{index}-{stage.name}"
    if when == "never" or (when == "last_stage" and not last) or session.run.evaluation(name).exists():
        return
    if model is None:
        model = _model_before(session, index + 1)
    result = evaluate_split(session, model, name=name, images=stage.images)
    session.say(describe(result))


def evaluate_split(
    session: Session, model: PolyvexForConditionalGeneration, *, name: str, images: bool = True
) -> Evaluation:
    """Answer the test split, and write the summary and every answer into the run."""
    options, data = session.recipe.evaluation, session.data
    metric = session.registries.metrics[options.metric]()
    result = evaluate(
        model,
        session.processor,
        data.test,
        data.cache.tokens,
        metric=(options.metric, metric),
        options=options,
        name=name,
        images=images,
        skipped=data.skipped_test,
        progress=session.progress,
    )
    load = expert_load(model, session.processor, data.test[:512], data.cache.tokens)
    path = session.run.evaluation(name)
    write_whole(path.with_suffix(".jsonl"), result.lines())
    write_whole(path, json.dumps({**result.summary(), "expert_load": load}, indent=2))
    return result


def describe(result: Evaluation) -> str:
    """Accuracy in total and per kind, on one line."""
    kinds = ", ".join(f"{kind} {mean:.1%}" for kind, (mean, _) in result.by_kind().items())
    blind = "" if result.images else " WITHOUT images"
    return f"accuracy after {result.name}{blind}: {result.accuracy:.2%} of {len(result.answers)} questions ({kinds})"


def _finish(session: Session, model: PolyvexForConditionalGeneration | None) -> None:
    """Store the finished model with its encoders in the run itself."""
    model = model or _model_before(session, len(session.recipe.stages))
    for name, report in model.attach_encoders(session.registries).items():
        session.say(f"encoder {name}: {report}")
    model.save_pretrained(session.run.path)
    session.say(f"finished: {session.run.path}")
