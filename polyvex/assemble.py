"""From a recipe to a model and its processor."""

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from polyvex.data.prompt import IMAGE
from polyvex.encoders.weights import WeightsReport
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.hooks.registry import CORE, Plugin, Registry
from polyvex.lm.base import LanguageModel
from polyvex.lm.tokenizer import add_token
from polyvex.recipe.check import about, recipe_layouts
from polyvex.recipe.matching import sized_fusion
from polyvex.recipe.model import encoder_names
from polyvex.recipe.prompt import PromptForm, prompt_form
from polyvex.recipe.schema import Recipe
from polyvex.recipe.start import Start, start_of
from polyvex.recipe.tables import origin_key
from polyvex.remote_code import WAY_OUT, remote_code

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from polyvex.model import PolyvexConfig, PolyvexForConditionalGeneration, PolyvexProcessor


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model, its processor, and the account of loaded weights: each encoder's by name, and the ``[fusion]``'s."""

    model: "PolyvexForConditionalGeneration"
    processor: "PolyvexProcessor"
    weights: dict[str, WeightsReport]


def make_config(
    recipe: Recipe,
    registries: Registries,
    *,
    text_config: "PreTrainedConfig",
    image_token_id: int,
    separator_ids: list[int] | None = None,
) -> "PolyvexConfig":
    """The model's configuration: the recipe's tables with every default written out. The model is dense at first.

    Raises:
        RecipeError: if the fusion cannot be brought to the size of another one, as its ``match`` asks.
    """
    from polyvex.model import PolyvexConfig

    try:
        fusion, _ = sized_fusion(recipe, registries, dim=text_config.get_text_config().hidden_size)
    except ValueError as error:
        raise RecipeError([f"[fusion]: {error}"], source=recipe.name) from None
    tables = encoder_tables(recipe)
    return PolyvexConfig(
        text_config=text_config.to_dict(),
        encoders=tables,
        fusion=fusion.model_dump(),
        positions=recipe.positions.model_dump(),
        moe=None,
        adapters={key: table.model_dump() for key in ("lora", "partial_lora") if (table := getattr(recipe.lm, key))},
        loss=recipe.loss.model_dump(),
        plugins=plugin_origins(recipe, registries),
        separator_ids=separator_ids or None,
        image_token_id=image_token_id,
    )


def encoder_tables(recipe: Recipe) -> list[dict[str, Any]]:
    """The encoders' tables with their names filled in."""
    return [
        {**table.model_dump(), "name": name} for table, name in zip(recipe.encoders, encoder_names(recipe), strict=True)
    ]


def plugin_origins(recipe: Recipe, registries: Registries) -> dict[str, str]:
    """The distribution and version of each encoder by its name, and by :func:`origin_key` of all other components.

    Components of polyvex itself are left out, except encoders.
    """
    found = {
        name: _requirement(registries.encoders.entry(table.use).plugin)
        for table, name in zip(recipe.encoders, encoder_names(recipe), strict=True)
    }
    used: list[tuple[Registry[Any], Any]] = [
        (registries.fusions, recipe.fusion),
        (registries.position_schemes, recipe.positions),
        *((registries.position_schemes, table.positions) for table in recipe.encoders),
        *((registries.reducers, table.reduce) for table in recipe.encoders),
        (registries.routers, recipe.moe.router if recipe.moe is not None else None),
    ]
    for registry, table in used:
        if table is not None and (plugin := registry.entry(table.use).plugin).distribution != CORE:
            found[origin_key(registry, table.use)] = _requirement(plugin)
    return found


def _requirement(plugin: Plugin) -> str:
    return f"{plugin.distribution}=={plugin.version}" if plugin.version else plugin.distribution


def make_processor(recipe: Recipe, registries: Registries, texts: Iterable[str]) -> "PolyvexProcessor":
    """The processor, with a tokenizer trained on ``texts`` or loaded, as the recipe's language model wants it.

    A recipe that starts from another run has that run's tokenizer, so that token ids mean what they meant there.
    """
    from polyvex.model import PolyvexProcessor
    from polyvex.model.processing import stored_runs

    component = registries.language_models[recipe.lm.use](recipe.lm)
    start = start_of(recipe)
    tokenizer = component.tokenizer(texts) if start is None else _tokenizer_of(start)
    form, stop_ids = make_prompt(recipe, component, tokenizer)
    # Nothing is special in this text: <image> would be taken for a visual token.
    separator = tokenizer.encode(recipe.fusion.separator_text, add_special_tokens=False, split_special_tokens=True)
    width = component.config().get_text_config().hidden_size
    layouts = recipe_layouts(recipe, registries, width, separator_ids=separator)
    return PolyvexProcessor(
        tokenizer,
        encoders=encoder_tables(recipe),
        template=form.template,
        runs=stored_runs(layouts),
        arrangement=asdict(layouts.arrangement),
        separator_ids=separator,
        end_ids=form.end_ids,
        stop_ids=stop_ids,
        plugins=plugin_origins(recipe, registries),
        registries=registries,
    )


def make_prompt(recipe: Recipe, component: LanguageModel, tokenizer: Any) -> tuple[PromptForm, list[int]]:
    """The form of the prompt, and the tokens that stop generation. The tokenizer gets its token for images.

    Raises:
        RecipeError: if there is no new id for that token, or the chat template cannot be used.
    """
    add_token(tokenizer, IMAGE)
    stop_ids = component.stop_ids(tokenizer)
    return prompt_form(recipe.prompt, tokenizer, stop_ids), stop_ids


def _tokenizer_of(start: Start) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(start.run, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if found := remote_code(start.run):
            raise RecipeError(
                [f"[start]: {start.run}: {', '.join(found)} asks to run code. {WAY_OUT}"], code="remote-code"
            ) from None
        why = " ".join(str(error).split())[:200]
        raise RecipeError([f"[start]: {start.run} has no tokenizer that can be read: {why}"]) from None


def check_context(recipe: Recipe, registries: Registries) -> None:
    """Refuse a recipe whose visual tokens alone fill the language model's context, before anything is encoded.

    Where they depend on the image, those of a tiny square one count; each sample is checked before it is trained on.

    Raises:
        RecipeError: with both numbers and the ways out.
    """
    config = registries.language_models[recipe.lm.use](recipe.lm).config().get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    tokens = recipe_layouts(recipe, registries, dim=config.hidden_size).tokens((1, 1))
    if context and tokens >= context:
        raise RecipeError(
            [
                f"one image takes {tokens} visual tokens, but the language model's context holds {context}. Raise "
                f"fusion.patches_per_token, lower an encoder's image_size, or take a model with a longer context"
            ],
            source=recipe.name,
        )


def build_model(
    recipe: Recipe, processor: "PolyvexProcessor", registries: Registries, *, encoders: bool = True
) -> tuple["PolyvexForConditionalGeneration", dict[str, WeightsReport]]:
    """Build the model before any training: dense, with the recipe's seed, or with the weights that it starts from.

    Args:
        encoders: also build the frozen encoders and load their pretrained weights; without them the model takes
            their tokens from the cache. Encoders that learn are always there.

    Raises:
        WeightsError: if weights of an encoder or of the fusion are missing or do not fit.
        RecipeError: if what the recipe starts from is not there, or is another model's.
    """
    from polyvex.model import PolyvexForConditionalGeneration
    from polyvex.model.components import build_encoders
    from polyvex.model.start import take_weights

    start = start_of(recipe)
    component = registries.language_models[recipe.lm.use](recipe.lm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        text_config = component.config()
        lm = component.load(text_config) if start is None else _fresh(text_config)
        use_attention(lm, recipe.lm.attention)
        config = make_config(
            recipe,
            registries,
            text_config=lm.config,
            image_token_id=processor.image_token_id,
            separator_ids=processor.separator_ids,
        )
        config.encoders_included = encoders
        if start is not None and start.sparse and recipe.moe is not None:
            config.moe = recipe.moe.model_dump()
        brought = start.brings if start is not None else ()
        with torch.random.fork_rng(devices=[]):  # or the connector would start elsewhere where an encoder learns
            own, reports = build_encoders(config, registries, pretrained=True, brought=brought)
        model = PolyvexForConditionalGeneration(config, lm=lm, encoders=own, registries=registries)
    if start is not None:
        take_weights(recipe, registries, model, start)
    elif (report := model.fusion.load_pretrained()) is not None:
        reports["[fusion]"] = report  # in brackets, since an encoder may be called fusion
    ends = processor.stop_ids
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    if processor.image_token_id < model.lm.config.vocab_size:
        model.generation_config.suppress_tokens = [processor.image_token_id]  # a placeholder is never an answer
    return model, reports


def _fresh(text_config: "PreTrainedConfig") -> Any:
    """A language model whose weights will come from elsewhere; in float32, as those that are loaded."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(text_config, dtype=torch.float32, trust_remote_code=False)


def use_attention(lm: Any, name: str) -> None:
    """Let a language model use an attention implementation, named as in recipes.

    ``auto`` is torch's fused attention (sdpa) where the model has it, else the plain one (eager).

    Raises:
        RecipeError: if it has no such one, which transformers does not always say.
    """
    from polyvex.model.attention import NAMES

    if name == "auto":
        for one in ("sdpa", "eager"):
            with contextlib.suppress(RecipeError):
                return use_attention(lm, one)
        return None  # it has no attention of these kinds, which other checks speak of
    try:
        lm.set_attn_implementation(NAMES[name])
    except (ValueError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        raise RecipeError([f"[lm]: {type(lm).__name__} cannot use attention = '{name}': {why}"]) from None
    if (used := lm.config._attn_implementation) != NAMES[name]:
        others = [one for one, theirs in NAMES.items() if theirs == used]
        take = f"Set attention = '{others[0]}'" if others else "Take another language model"
        raise RecipeError(
            [f"[lm]: {type(lm).__name__} has no attention = '{name}'; transformers would use '{used}'. {take}"]
        )


def empty_model(recipe: Recipe, registries: Registries) -> "PolyvexForConditionalGeneration":
    """The dense model with the shapes of its language model and of encoders that learn, and no memory for them.

    The caller's random numbers are left alone: planning a recipe must not change what is trained after.

    Raises:
        RecipeError: if the language model's configuration is not to be had, or it lacks the recipe's attention.
    """
    from transformers import AutoModelForCausalLM

    from polyvex.model.start import empty_of

    text_config = registries.language_models[recipe.lm.use](recipe.lm).config()
    config = make_config(
        recipe,
        registries,
        text_config=text_config,
        image_token_id=-1,
        separator_ids=about(recipe.fusion),
    )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(text_config, trust_remote_code=False)
        use_attention(lm, recipe.lm.attention)
    if not hasattr(lm.config, "hidden_size"):
        raise RecipeError(
            [
                f"[lm]: {type(lm).__name__} is a multimodal model with a language model inside. Take a checkpoint of "
                f"the language model alone"
            ],
            source=recipe.name,
            code="lm-multimodal",
        )
    return empty_of(config, registries, lm=lm)


def build(
    recipe: Recipe | str | Path, *, registries: Registries | None = None, texts: Iterable[str] | None = None
) -> Built:
    """Build everything that a recipe names: the model before any training, and its processor.

    Args:
        recipe: a recipe, or the path of its file.
        texts: what a tokenizer is trained on, where the language model wants that; the training split's questions
            and answers if not given.
    """
    from polyvex.recipe.read import read_recipe
    from polyvex.recipe.samples import training_texts

    registries = registries or load_registries()
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, registries=registries)
    processor = make_processor(recipe, registries, training_texts(recipe, registries) if texts is None else texts)
    model, weights = build_model(recipe, processor, registries)
    return Built(model=model, processor=processor, weights=weights)
