"""Go through a recipe's stages on a model without memory, so that what cannot work is told before anything is done."""

import inspect
from collections.abc import Callable
from typing import Any

from polyvex.cache.place import best_device
from polyvex.errors import PolyvexError, RecipeError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.attention import sliding_window
from polyvex.moe.upcycle import install_experts
from polyvex.recipe.schema import Recipe, Stage
from polyvex.training.parts import freeze_all_but, selected

Visit = Callable[[Stage, PolyvexForConditionalGeneration], None]


def rehearse(
    recipe: Recipe, registries: Registries, model: PolyvexForConditionalGeneration, *, visit: Visit | None = None
) -> list[str]:
    """Upcycle and freeze as each stage would; return what cannot work, one sentence each.

    Args:
        model: the dense model, which may be on ``meta``; it is changed.
        visit: called with each stage and the model as that stage would train it.
    """
    problems = _of_language_model(model.lm) or [*_of_positions(recipe, model), *_of_attention(recipe, model.lm)]
    for stage in recipe.stages:
        try:
            if stage.upcycle and recipe.moe is not None:
                router = recipe.moe.router
                kind = registries.routers[router.use]
                install_experts(model.lm, recipe.moe, (kind, router), copy=False, context=model.context)
            freeze_all_but(model, selected(model, stage.trains))
        except RecipeError as error:
            return [*problems, *(f"stage {stage.name}: {problem}" for problem in error.problems)]
        except (PolyvexError, ValueError) as error:
            return [*problems, f"stage {stage.name}: {error}"]
        if visit is not None:
            visit(stage, model)
    return problems


def _of_language_model(lm: Any) -> list[str]:
    """What polyvex needs of a language model: a cache for decoding."""
    if "past_key_values" in inspect.signature(type(lm).forward).parameters:
        return []
    return [
        f"[lm]: {type(lm).__name__} decodes without a key-value cache, which polyvex needs. Take an attention model"
    ]


def _of_positions(recipe: Recipe, model: PolyvexForConditionalGeneration) -> list[str]:
    """What a position scheme asks of the language model: that it uses positions, and takes those with a fraction."""
    name = type(model.lm).__name__
    own = [table.positions for table in recipe.encoders if table.positions is not None]
    tables = [table for table in (recipe.positions, *own) if table.use != "sequential" or table.base != "sequential"]
    if tables and "position_ids" not in inspect.signature(type(model.lm).forward).parameters:
        return [
            f"[positions]: {name} takes no position ids, so '{tables[0].use}' would have no effect. Use "
            f"positions.use = 'sequential', or a language model with rotary or learned positions"
        ]
    layout = model.layouts.of(None if model.layouts.fixed else (1, 1))
    broken = model.positions.of_image(layout)[0].is_floating_point()
    if broken and not any("rotary" in type(module).__name__.lower() for module in model.lm.modules()):
        return [
            f"[positions]: {name} looks its positions up in a table, so it cannot take those with a fraction, which "
            f"'{tables[0].use}' gives. Use a scheme of whole positions, or a language model with rotary positions"
        ]
    return []


def _of_attention(recipe: Recipe, lm: Any) -> list[str]:
    """What packing and an attention implementation ask of the language model and of this machine."""
    problems = []
    if recipe.training.pack and (window := sliding_window(lm)) is not None:
        problems.append(
            f"[training]: texts cannot be packed for a language model with a sliding window ({window} tokens). "
            f"Set pack = false"
        )
    if recipe.lm.attention == "flex" and best_device().type == "cpu":
        problems.append(
            "[lm]: torch has no backward pass of flex attention on a CPU. Set attention = 'sdpa', or train on a GPU"
        )
    return problems


def own_experts(lm: Any) -> bool:
    """Whether a language model is a mixture of experts by itself."""
    config = lm.config.get_text_config()
    return any(getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
