"""Put a plan together from a recipe: sizes are counted on a model without memory, costs are estimated from them."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyvex.assemble import empty_model, make_prompt
from polyvex.cache.changes import notes_on
from polyvex.cache.place import best_device, cache_root, places
from polyvex.cache.store import TokenStore
from polyvex.encoders.images import ImageLimits, size_of_file
from polyvex.encoders.precision import used
from polyvex.encoders.tiling import Size
from polyvex.encoders.views import EncoderViews
from polyvex.errors import DataError, PolyvexError, RecipeError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.start import unlike
from polyvex.moe.upcycle import begins_unlike
from polyvex.plan.cost import Joining, StageCost, count, joining_cost, stage_cost
from polyvex.plan.text import plan_text
from polyvex.plan.tokens import EncoderBudget, budgets
from polyvex.recipe.check import CHARACTERS_PER_TOKEN, about, recipe_layouts
from polyvex.recipe.matching import sized_fusion
from polyvex.recipe.prompt import DATED
from polyvex.recipe.samples import image_limits, image_notes, image_problems, read_split
from polyvex.recipe.schema import CHAT, Recipe, Stage
from polyvex.recipe.start import Start, begins_sparse, find_start
from polyvex.training.rehearse import rehearse, unread_experts

QUESTION_ROOM = 64
"""Tokens kept free for question and answer where no data set can be read."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that can be known beforehand. ``problems`` must be mended in the recipe, ``missing`` tells what is not
    on this machine and how to get it, ``notes`` stop nothing; each says what to do. ``start`` tells the stage of
    another run that this one begins with; empty if it begins anew.

    ``visual_tokens`` and ``visual_positions`` are of one image: if they depend on it, of one of ``visual_size`` (height
    and width), the costliest that there is. ``images_per_sample`` is the largest number that a sample has,
    ``text_tokens`` an estimate for the longest question and answer. ``fusion_parameters`` is None where the language
    model is not known, ``fusion_grids`` are those of the runs that come out of it for a tile.
    """

    recipe: str
    start: str
    encoders: list[EncoderBudget]
    fusion: str
    fusion_parameters: int | None
    fusion_grids: list[str]
    visual_tokens: int
    visual_positions: int
    visual_size: tuple[int, int] | None
    images_per_sample: int
    text_tokens: int
    context: int
    stages: list[StageCost]
    images: int
    cache_bytes: int
    cached_bytes: int
    cache_folder: str
    problems: list[str]
    missing: list[str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return plan_text(self)


def make_plan(recipe: Recipe, registries: Registries, *, cache: str | Path | None = None) -> Plan:
    """Plan a recipe. Reads the data set's questions if they are on this machine, and no weights."""
    start, problems = find_start(recipe)
    notes: list[str] = []
    model = _model(recipe, registries, problems)
    lm_config = model.lm.config.get_text_config() if model is not None else None
    width = lm_config.hidden_size if lm_config is not None else 1
    missing: list[str] = []
    template = _template(recipe, registries, problems, notes)
    data = _data(recipe, registries, template, problems, missing, notes)
    budget = budgets(recipe, registries, dim=width, sizes=sorted(data.sizes))
    context = int(getattr(lm_config, "max_position_embeddings", 0) or 0)
    _check_context(problems, context, budget.tokens, data)
    _check_encoders(budget.encoders, missing, notes, brought=start.brings if start is not None else [])
    if model is not None:
        _, matches = sized_fusion(recipe, registries, dim=width)
        notes += [f"fusion: to match {recipe.fusion.match_to.use}, {match}" for match in matches]
    if recipe.start is None:
        _check_first_weights(recipe, registries, missing, notes)
    elif start is not None and model is not None:
        notes += [f"not as in {start.run}: {line}" for line in unlike(recipe, model, start)]
    visual = data.images_per_sample * budget.tokens
    seeing = data.images_per_sample * sum(one.flops or 0 for one in _learning(recipe, budget.encoders))
    lengths = (visual, data.text)
    joining = _joining(model, budget.encoders, data.images_per_sample, notes) if model is not None else None
    costs = (seeing, joining)
    stages = _stages(recipe, registries, model, start, lengths, costs, problems, notes) if model is not None else []
    notes += _tuning_notes(recipe, budget.encoders) + _arrangement_notes(recipe, registries)
    size, cached = _cache(recipe, registries, budget.encoders, data, cache, notes)
    return Plan(
        recipe=recipe.name,
        start=f"{start} ({'sparse' if start.sparse else 'dense'})" if start is not None else "",
        encoders=budget.encoders,
        fusion=recipe.fusion.use,
        fusion_parameters=count(model.fusion) if model is not None else None,
        fusion_grids=_fusion_grids(recipe, registries, width),
        visual_tokens=budget.tokens,
        visual_positions=budget.positions,
        visual_size=budget.size,
        images_per_sample=data.images_per_sample,
        text_tokens=data.text,
        context=context,
        stages=stages,
        images=data.images,
        cache_bytes=size,
        cached_bytes=cached,
        cache_folder=str(cache_root(cache)),
        problems=problems,
        missing=missing,
        notes=notes,
    )


def _check_first_weights(recipe: Recipe, registries: Registries, missing: list[str], notes: list[str]) -> None:
    """What the connector and the language model begin with, where that is no other run."""
    place = registries.fusions[recipe.fusion.use].weights(recipe.fusion)
    if place is not None and place.path is None:
        missing.append(f"fusion {recipe.fusion.use}: {place.install}")
    if way := registries.language_models[recipe.lm.use](recipe.lm).missing():
        missing.append(f"language model {recipe.lm.use}: {way}")
    if recipe.lm.use in registries.language_models and not registries.language_models[recipe.lm.use].pretrained:
        notes.append(f"the language model '{recipe.lm.use}' starts from RANDOM weights")


def _fusion_grids(recipe: Recipe, registries: Registries, width: int) -> list[str]:
    """The grid of each run that one tile becomes behind the fusion, ``none`` where there is none."""
    return [str(run.tile.grid or "none") for run in recipe_layouts(recipe, registries, width).runs]


def _model(recipe: Recipe, registries: Registries, problems: list[str]) -> PolyvexForConditionalGeneration | None:
    """The dense model without memory; None if the language model's configuration is not to be had."""
    try:
        return empty_model(recipe, registries)
    except RecipeError as error:
        problems += error.problems
    except PolyvexError as error:
        problems.append(str(error))
    return None


def _stages(
    recipe: Recipe,
    registries: Registries,
    model: PolyvexForConditionalGeneration,
    start: Start | None,
    tokens: tuple[int, int],
    images: tuple[int, Joining | None],
    problems: list[str],
    notes: list[str],
) -> list[StageCost]:
    """The cost of each stage, for samples of so many visual and text ``tokens``.

    ``images`` is what those of a sample cost: FLOPs of seeing them, and what joining them takes.
    """
    seeing, joining = images
    costs: list[StageCost] = []
    if unread_experts(model.lm) and recipe.loss.load_balance:
        notes.append(
            f"the experts of {type(model.lm).__name__} cannot be read: they train without a load-balancing loss, count "
            f"as lm.ffn, and all of them as active"
        )

    def cost(stage: Stage, model: PolyvexForConditionalGeneration) -> None:
        length = tokens[1] + (tokens[0] if stage.images else 0)
        joined = joining if stage.images else None
        cost = stage_cost(model, stage, length=length, seeing=seeing if stage.images else 0, joining=joined)
        costs.append(cost)

    problems += rehearse(recipe, registries, model, start=start, visit=cost)
    upcycling = next((stage for stage in recipe.stages if stage.upcycle), None)
    if upcycling is not None or begins_sparse(recipe):
        first = upcycling or recipe.stages[0]
        told = _router_notes(recipe, registries, begins=upcycling is not None)
        notes += [f"stage {first.name}: {note}" for note in told]
    return costs


def _joining(
    model: PolyvexForConditionalGeneration, encoders: list[EncoderBudget], images: int, notes: list[str]
) -> Joining | None:
    """What it costs to reduce and fuse a sample's images; a note instead if that cannot be tried without memory."""
    tiles = [one.tokens_in // shape.tokens for one, shape in zip(encoders, model.input_shapes, strict=True)]
    try:
        one = joining_cost(model, tiles)
    except Exception as error:  # a plugin's forward may read values, and there are none here
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        notes.append(f"what reducers and fusion cost is NOT counted, for they cannot run without memory: {why}")
        return None
    return Joining(flops=images * one.flops, kept=images * one.kept)


def _router_notes(recipe: Recipe, registries: Registries, *, begins: bool) -> list[str]:
    """What to know of the router; also of how its experts begin, if they begin in this recipe."""
    if recipe.moe is None:
        return []
    router, notes = recipe.moe.router, []
    kind = registries.routers[router.use]
    if begins and (why := begins_unlike(recipe.moe, (kind, router))):
        equal = "; top_k with renormalize = true would keep it equal" if not kind.weights_sum_to_one(router) else ""
        notes.append(f"the upcycled model starts unlike the dense one, for {why}{equal}")
    if kind.may_drop(router):
        notes.append(
            f"'{router.use}' leaves tokens without any expert where experts are full; the log tells their share as "
            f"dropped"
        )
    if not kind.causal:
        notes.append(f"'{router.use}' lets the language model see later tokens, as the recipe says it may")
        if recipe.loss.load_balance:
            notes.append(f"'{router.use}' balances by itself; loss.load_balance = 0 would leave it to that")
    if not kind.learns_from_answers(router):
        notes.append(
            "with these options the answers do not train the router, only auxiliary losses do. Two experts per token, "
            "or weights that are not renormalized, would let it learn"
        )
    return notes


@dataclass(frozen=True, kw_only=True)
class _DataFacts:
    """Number of images in all, the most that a sample has, and tokens of the longest question and answer.

    ``sizes`` counts the images of each size, if visual tokens depend on it.
    """

    images: int
    images_per_sample: int
    text: int
    sizes: Mapping[Size, int]


def _data(
    recipe: Recipe, registries: Registries, template: str, problems: list[str], missing: list[str], notes: list[str]
) -> _DataFacts:
    try:
        train = read_split(recipe, registries, recipe.data.train_split)
        test = read_split(recipe, registries, recipe.data.test_split)
    except PolyvexError as error:
        places = [Path(getattr(recipe.data, name)) for name in recipe.data.path_options()]
        told = missing if any(not place.exists() for place in places) else problems
        told.append(
            f"the data set cannot be read, so one image and {QUESTION_ROOM} text tokens per sample are assumed: {error}"
        )
        return _DataFacts(images=0, images_per_sample=1, text=QUESTION_ROOM, sizes={})
    problems += image_problems(recipe, train)
    notes += image_notes(training=train, test=test)
    samples = [*train, *test]
    images = {path for sample in samples for path in sample.images}
    longest = max(samples, key=lambda sample: len(sample.question) + len(sample.answer))
    template = template.replace("{image}", "").replace("{question}", longest.question)
    # A token is at least one character of the text, and about four in English; the true count needs a tokenizer.
    text = max(1, -(-(len(template) + len(longest.answer)) // CHARACTERS_PER_TOKEN) + 2)
    most = max(len(sample.images) for sample in samples)
    sizes = {} if recipe_layouts(recipe, registries, dim=1).fixed else _sizes(images, image_limits(recipe))
    return _DataFacts(images=len(images), images_per_sample=most, text=text, sizes=sizes)


def _template(recipe: Recipe, registries: Registries, problems: list[str], notes: list[str]) -> str:
    """The prompt's template; blank text of a usual length if the language model is not on this machine."""
    if recipe.prompt.template != CHAT:
        return recipe.prompt.template
    component = registries.language_models[recipe.lm.use](recipe.lm)
    if not component.pretrained:
        problems.append(f"[prompt]: template is '{CHAT}', but {recipe.lm.use} was not trained to chat. Write one out")
    elif not component.missing():
        try:
            form, _ = make_prompt(recipe, component, component.tokenizer([]))
            notes += [DATED.format(date=recipe.prompt.date)] if form.dated else []
            return form.template
        except RecipeError as error:
            problems += error.problems
    return " " * CHARACTERS_PER_TOKEN * QUESTION_ROOM


def _sizes(paths: set[str], limits: ImageLimits) -> Mapping[Size, int]:
    """Images of each size; of files that cannot be read, nothing is known here, and training leaves them out."""
    sizes: Counter[Size] = Counter()
    for path in paths:
        with contextlib.suppress(DataError):
            sizes[size_of_file(path, limits)] += 1
    return sizes


def _check_context(problems: list[str], context: int, tokens: int, data: _DataFacts) -> None:
    needed = data.images_per_sample * tokens + data.text
    if context and needed > context:
        images = f"{data.images_per_sample} images of {tokens}" if data.images_per_sample > 1 else str(tokens)
        problems.append(
            f"the language model's context holds {context} tokens, but {images} visual and about {data.text} text "
            f"tokens need {needed}. Sharing positions does not shorten the sequence: raise fusion.patches_per_token, "
            f"lower an encoder's image_size, or take a language model with a longer context"
        )


def _check_encoders(
    encoders: list[EncoderBudget], missing: list[str], notes: list[str], *, brought: Sequence[str]
) -> None:
    for budget in encoders:
        if budget.weights.startswith("MISSING") and budget.name not in brought:
            missing.append(f"encoder {budget.name}: {budget.weights.removeprefix('MISSING: ')}")
        if not budget.commercial:
            notes.append(f"encoder {budget.name}: its weights are NOT for commercial use ({budget.license})")


def _learning(recipe: Recipe, encoders: list[EncoderBudget]) -> list[EncoderBudget]:
    """Encoders whose tokens are not cached."""
    return [one for table, one in zip(recipe.encoders, encoders, strict=True) if table.tune != "frozen"]


def _arrangement_notes(recipe: Recipe, registries: Registries) -> list[str]:
    notes = []
    if recipe.fusion.separator == "text":
        notes.append(
            f"the text between encoders is counted as {len(about(recipe.fusion))} tokens by its length; its tokenizer "
            f"may make more or fewer of it"
        )
    if registries.fusions[recipe.fusion.use].routes and getattr(recipe.fusion, "k", 0) >= len(recipe.encoders):
        notes.append(
            f"fusion {recipe.fusion.use}: k = {recipe.fusion.k} takes all {len(recipe.encoders)} encoders for every "
            f"question, so none is ever left out"
        )
    for stage in recipe.stages if recipe.training.pack else []:
        if stage.batch_size == stage.accumulate:
            notes.append(f"stage {stage.name}: one sample at a time leaves nothing to pack")
    return notes


def _tuning_notes(recipe: Recipe, encoders: list[EncoderBudget]) -> list[str]:
    notes = [
        f"encoder {one.name} learns, so images are encoded in each step, and its activations come on top of the memory"
        for one in _learning(recipe, encoders)
    ]
    device = best_device()
    for table, one in zip(recipe.encoders, encoders, strict=True):
        if used(device, table.precision) != table.precision:
            notes.append(
                f"encoder {one.name}: {table.precision} has no effect on this machine ({device.type}); it computes in "
                f"float32"
            )
    return notes


def _cache(
    recipe: Recipe,
    registries: Registries,
    encoders: list[EncoderBudget],
    data: _DataFacts,
    cache: str | Path | None,
    notes: list[str],
) -> tuple[int, int]:
    """Bytes that the whole cache takes, and bytes of it that are there. Each image counts with its own tiles."""
    width = {"float32": 4, "float16": 2, "bfloat16": 2}[recipe.cache.dtype]
    found = places(recipe, registries, root=cache_root(cache))
    whole, there = 0, 0
    for table, one in zip(recipe.encoders, encoders, strict=True):
        if table.tune != "frozen":
            continue
        kind = registries.encoders[table.use]
        shape = kind.describe(table).shape
        views = EncoderViews(kind=kind, options=table, tiling=table.tiling)
        tiles = sum(views.tiles(size) * images for size, images in data.sizes.items())
        tiles = tiles or data.images * one.tokens_in // shape.tokens
        notes += [f"cache: {one.name}: {note}" for note in notes_on(found[one.name])]
        cached = TokenStore(found[one.name].folder, found[one.name].about).tiles
        whole += tiles * shape.tokens * shape.dim * width
        there += min(cached, tiles or cached) * shape.tokens * shape.dim * width
    return whole, there
