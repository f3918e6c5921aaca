"""What a recipe's tables say together: everything that can be known before anything is built."""

from pathlib import Path
from typing import Any

from torch import nn

from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import unknown
from polyvex.layouts import ImageLayouts, image_layouts, token_shapes
from polyvex.moe.options import chosen_layers
from polyvex.moe.routers import Router
from polyvex.recipe.arrangement import arrangement_problems, separator_problems
from polyvex.recipe.matching import matching_problems, sized_fusion
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import PARTS, LossTable, Recipe, Stage
from polyvex.recipe.start import begins_sparse, find_start, upcycling_problems
from polyvex.tokens import TokenShape

CHARACTERS_PER_TOKEN = 3
"""Careful estimate for English text: usual tokenizers need a token for about four characters."""

FLASH = (
    "flash attention cuts a row into texts wherever its positions are at their least, and positions that repeat would "
    "cut attention without a word"
)
"""Why flash attention cannot be used."""

RESERVED = frozenset(dir(nn.ModuleDict()))
"""Names that torch itself uses where the model keeps its encoders."""


def find_problems(recipe: Recipe, registries: Registries, *, out: Path | None = None) -> list[str]:
    """Sentences about what cannot work, each with the numbers and a way out. Empty if all is well.

    Args:
        out: folder of the recipe's run, if it has one; see :func:`~polyvex.recipe.start.start_of`.
    """
    problems = _encoders(recipe, registries)
    if not problems:
        problems += _reducers(recipe, registries) or _fusion(recipe, registries)
    problems += separator_problems(recipe)
    problems += _names(recipe)
    if recipe.lm.attention == "flash":
        problems.append(f"[lm]: attention = 'flash' is refused: {FLASH}. Take auto, sdpa, eager or flex")
    start, lost = find_start(recipe, out)
    problems += lost + upcycling_problems(recipe, start) + _experts(recipe, registries)
    problems += _tuning(recipe) + _adapters(recipe)
    sparse = (start.sparse if start is not None else begins_sparse(recipe)) or _may_have_experts(recipe, registries)
    for index, stage in enumerate(recipe.stages):
        problems += _stage(recipe, index, stage, sparse=sparse)
    if recipe.evaluation.metric not in registries.metrics:
        problems.append(f"[evaluation]: {unknown('metric', recipe.evaluation.metric, registries.metrics.names())}")
    return problems


def encoder_shapes(recipe: Recipe, registries: Registries) -> list[TokenShape]:
    """What each encoder emits, in order.

    Raises:
        ValueError: if an encoder's options cannot go together.
    """
    return [registries.encoders[table.use].describe(table).shape for table in recipe.encoders]


def recipe_layouts(
    recipe: Recipe, registries: Registries, dim: int, *, separator_ids: list[int] | None = None
) -> ImageLayouts:
    """The visual tokens that reach the language model, for images of any size.

    Args:
        separator_ids: tokens of the text between two runs; about as many as it will have if not given.

    Raises:
        ValueError: if encoders, tiles and fusion cannot go together.
    """
    encoders = [(registries.encoders[table.use], table) for table in recipe.encoders]
    ids = about(recipe.fusion) if separator_ids is None else separator_ids
    separator = 1 if recipe.fusion.separator == "learned" else len(ids)
    fusion = (registries.fusions[recipe.fusion.use], sized_fusion(recipe, registries)[0])
    shapes = token_shapes(encoders, registries.reducers)
    return image_layouts(encoders, fusion, shapes=shapes, dim=dim, separator=separator)


def about(fusion: Any) -> list[int]:
    """Stand-ins for the tokens of the text between two runs, as many as it may have: one for three characters."""
    return [0] * -(-len(fusion.separator_text) // CHARACTERS_PER_TOKEN) if fusion.separator == "text" else []


def _encoders(recipe: Recipe, registries: Registries) -> list[str]:
    problems = []
    for index, table in enumerate(recipe.encoders):
        try:
            registries.encoders[table.use].describe(table)
        except ValueError as error:
            problems.append(f"[[encoders]] #{index + 1} ({table.use}): {error}")
    return problems


def _reducers(recipe: Recipe, registries: Registries) -> list[str]:
    problems = []
    for index, table in enumerate(recipe.encoders):
        if table.reduce is not None:
            shape = registries.encoders[table.use].describe(table).shape
            try:
                registries.reducers[table.reduce.use].describe(table.reduce, shape=shape)
            except ValueError as error:
                problems.append(f"[[encoders]] #{index + 1} ({table.use}).reduce: {error}")
    return problems


def _fusion(recipe: Recipe, registries: Registries) -> list[str]:
    if problems := matching_problems(recipe, registries):
        return problems
    try:
        # The width does not matter for whether it fits, and the language model is not asked yet.
        layouts = recipe_layouts(recipe, registries, dim=1)
    except ValueError as error:
        return [f"[fusion]: {error}"]
    return arrangement_problems(recipe, registries, layouts)


def _names(recipe: Recipe) -> list[str]:
    problems = []
    for what, names in (
        ("[[encoders]]", encoder_names(recipe)),
        ("[[stages]]", [stage.name for stage in recipe.stages]),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"{what}: the name '{name}' is used {names.count(name)} times; names must differ")
    for name in encoder_names(recipe):
        if name in RESERVED:
            problems.append(f"[[encoders]]: the name '{name}' is reserved; call it {name}-encoder, say")
    return problems


def _experts(recipe: Recipe, registries: Registries) -> list[str]:
    if recipe.moe is None:
        # One that is loaded may be a mixture of experts by itself; that is known once its configuration is read.
        return [] if registries.language_models[recipe.lm.use].pretrained else unheard_losses(recipe)
    problems = []
    router = recipe.moe.router
    for count in sorted(set(recipe.moe.counts)):
        try:
            registries.routers[router.use].check(router, num_experts=count)
        except ValueError as error:
            problems.append(f"[moe.router]: {error}")
    problems += _of_router(recipe, registries.routers[router.use])
    layers = getattr(recipe.lm, "layers", None)
    if isinstance(layers, int):
        try:
            chosen = chosen_layers(recipe.moe.layers, layers)
            if not chosen:
                problems.append(f"[moe]: layers = {recipe.moe.layers!r} chooses none of {layers} layers")
            recipe.moe.of_layers(chosen)
        except ValueError as error:
            problems.append(f"[moe]: {error}")
    return problems


def unheard_losses(recipe: Recipe) -> list[str]:
    """Losses of routers that a recipe weighs, for a language model without any."""
    plain = LossTable()
    told = [name for name in LossTable.model_fields if getattr(recipe.loss, name) not in (0, getattr(plain, name))]
    return [f"[loss]: {name} has no effect without a [moe] table: there is no router to teach" for name in told]


def _may_have_experts(recipe: Recipe, registries: Registries) -> bool:
    """Whether the language model is loaded, and so may be a mixture of experts by itself."""
    return recipe.moe is None and registries.language_models[recipe.lm.use].pretrained


def _learning(recipe: Recipe) -> list[str]:
    """The part of each encoder that learns, as ``trains`` may name it."""
    pairs = zip(recipe.encoders, encoder_names(recipe), strict=True)
    return [f"encoders.{name}" for table, name in pairs if table.tune != "frozen"]


def _tuning(recipe: Recipe) -> list[str]:
    """Keys of encoders that would have no effect."""
    problems = []
    trained = {entry for stage in recipe.stages for entry in stage.trains}
    patterns = any("*" in entry for entry in trained)
    for table, name in zip(recipe.encoders, encoder_names(recipe), strict=True):
        where = f"[[encoders]] {name}"
        if table.lora is not None and table.tune != "lora":
            problems.append(
                f"{where}: lora has no effect with tune = '{table.tune}'. Set tune = 'lora', or take it out"
            )
        if table.tune != "frozen" and table.precision == "float16":
            problems.append(
                f"{where}: learns in float16, whose small gradients vanish. Set precision = 'bfloat16' or 'float32'"
            )
        if table.tune != "frozen" and not patterns and not trained & {"encoders", f"encoders.{name}"}:
            problems.append(
                f"{where}: tune is '{table.tune}', but no stage trains encoders, or encoders.{name}. Add it to a "
                f"stage's trains, or leave the encoder frozen"
            )
    return problems


def _adapters(recipe: Recipe) -> list[str]:
    """Adapters of the language model that no stage trains, and stages that train ones that are not there."""
    problems = []
    trained = {entry for stage in recipe.stages for entry in stage.trains}
    patterns = any("*" in entry for entry in trained)
    for key in ("lora", "partial_lora"):
        there, part = getattr(recipe.lm, key, None) is not None, f"lm.{key}"
        if there and not patterns and not trained & {"lm", part}:
            problems.append(f"[{part}]: no stage trains it. Add {part} to a stage's trains, or take the table out")
        if part in trained and not there:
            problems.append(f"[[stages]]: {part} is to be trained, but [{part}] is not there. Add it, or take it out")
    return problems


def _stage(recipe: Recipe, index: int, stage: Stage, *, sparse: bool) -> list[str]:
    """Problems of one stage; ``sparse`` is true where the language model may have experts from the first on."""
    where = f"[[stages]] {stage.name}"
    problems = [
        f"{where}: {unknown('part in trains', part, list(PARTS))}, or a pattern with *"
        for part in stage.trains
        if part not in PARTS and "*" not in part and part not in _learning(recipe)
    ]
    if twice := sorted({part for part in stage.trains if stage.trains.count(part) > 1}):
        problems.append(f"{where}: trains names {', '.join(twice)} more than once")
    problems += [f"{where}: {problem}" for problem in _covered(stage.trains)]
    if stage.batch_size % stage.accumulate:
        problems.append(f"{where}: batch_size {stage.batch_size} is not a multiple of accumulate {stage.accumulate}")
    if stage.warmup > stage.steps:
        problems.append(f"{where}: warmup {stage.warmup} is longer than the stage's {stage.steps} steps")
    if isinstance(stage.lr, dict) and set(stage.lr) != set(stage.trains):
        problems.append(
            f"{where}: lr has rates for {sorted(stage.lr)}, expected one for each of {sorted(stage.trains)}"
        )
    upcycled = recipe.moe is not None and any(earlier.upcycle for earlier in recipe.stages[: index + 1])
    if "lm.moe" in stage.trains and not (sparse or upcycled):
        problems.append(f"{where}: trains lm.moe, but no expert exists yet; set upcycle = true here or before")
    if "encoders" in stage.trains and not _learning(recipe):
        problems.append(
            f"{where}: trains encoders, but all of them are frozen. Set tune = 'lora' or 'trainable' in [[encoders]]"
        )
    if not stage.images and any(part.partition(".")[0] == "encoders" for part in stage.trains):
        problems.append(f"{where}: trains encoders with images = false, so nothing would reach them")
    if not stage.images and "lm.partial_lora" in stage.trains:
        problems.append(f"{where}: trains lm.partial_lora with images = false, so nothing would reach it")
    if not stage.images and "connector" in stage.trains:
        problems.append(f"{where}: trains the connector with images = false, so nothing would reach it")
    return problems


def _covered(trains: list[str]) -> list[str]:
    """A parameter counts for the first entry of ``trains`` that fits, so a narrower entry must come first."""
    problems = []
    for index, entry in enumerate(trains):
        for earlier in trains[:index]:
            if entry.startswith(f"{earlier}.") or ("*" in entry and earlier in ("connector", "encoders", "lm")):
                problems.append(f"trains names '{entry}' after '{earlier}', which takes its weights. Put it first")
                break
    return problems


def _of_router(recipe: Recipe, kind: type[Router]) -> list[str]:
    """What a router cannot do in a language model, or for the losses that the recipe weighs."""
    assert recipe.moe is not None
    problems, router = [], recipe.moe.router
    if not kind.causal and not recipe.moe.non_causal:
        problems.append(
            f"[moe.router]: '{router.use}' lets a language model see later tokens while it trains, which it cannot "
            f"when it writes. Take top_k, or say non_causal = true in [moe]"
        )
    if not kind.causal and recipe.training.pack:
        problems.append(
            f"[training]: '{router.use}' lets the texts of a row see each other, so they cannot be packed. Set "
            f"pack = false"
        )
    if kind.causal and recipe.moe.non_causal:
        problems.append(f"[moe]: non_causal = true has no effect with the router '{router.use}'; take it out")
    if recipe.loss.load and not kind.estimates_load(router, num_experts=min(recipe.moe.counts)):
        problems.append(
            f"[loss]: load = {recipe.loss.load:g} would teach nothing, for '{router.use}' estimates no loads. Take "
            f"noisy_top_k with fewer choices than experts, or load_balance"
        )
    if recipe.loss.balance_layers == "pooled" and len(set(recipe.moe.counts)) > 1:
        problems.append(
            f"[loss]: balance_layers = 'pooled' needs the same number of experts in each layer; num_experts is "
            f"{recipe.moe.counts}. Use 'sum'"
        )
    return problems
