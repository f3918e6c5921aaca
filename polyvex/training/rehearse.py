"""Go through a recipe's stages on a model without memory, so that what cannot work is told before anything is done."""

from collections.abc import Callable
from typing import Any

from polyvex.errors import PolyvexError, RecipeError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.adapting import Adapters, unheard_targets
from polyvex.model.start import start_problems
from polyvex.moe.record import routers, unread_routers
from polyvex.moe.upcycle import install_experts
from polyvex.recipe.schema import Recipe, Stage
from polyvex.recipe.start import Start, begins_sparse
from polyvex.training.abilities import language_model_problems
from polyvex.training.parts import freeze_all_but, selected

Visit = Callable[[Stage, PolyvexForConditionalGeneration], None]


def rehearse(
    recipe: Recipe,
    registries: Registries,
    model: PolyvexForConditionalGeneration,
    *,
    start: Start | None = None,
    visit: Visit | None = None,
) -> list[str]:
    """Upcycle and freeze as each stage would; return what cannot work, one sentence each.

    Args:
        model: the dense model, which may be on ``meta``; it is changed.
        start: the weights that the first stage begins with, which must fit; None if they are not needed any more.
        visit: called with each stage and the model as that stage would train it.
    """
    problems = language_model_problems(recipe, model)
    at_first = _unheard(model)
    try:
        problems += _begin(recipe, registries, model, start)
    except RecipeError as error:
        return [*problems, *error.problems]
    except (PolyvexError, ValueError) as error:
        return [*problems, f"[start]: {error}"]
    for stage in recipe.stages:
        try:
            if stage.upcycle:
                _upcycle(recipe, registries, model)
            freeze_all_but(model, selected(model, stage.trains))
        except RecipeError as error:
            # A target that fits nothing may be why a stage has nothing to train. Those of experts may fit later.
            told = [said for (_, target), said in at_first.items() if "experts" not in target]
            return [*problems, *told, *(f"stage {stage.name}: {problem}" for problem in error.problems)]
        except (PolyvexError, ValueError) as error:
            return [*problems, f"stage {stage.name}: {error}"]
        if visit is not None:
            visit(stage, model)
    # A network that becomes experts takes along what its adapters learned, so a target may fit before or after.
    return problems + [said for target, said in _unheard(model).items() if target in at_first]


def _unheard(model: PolyvexForConditionalGeneration) -> dict[tuple[str, str], str]:
    return unheard_targets(model.lm, Adapters.model_validate(model.config.adapters or {}))


def _begin(
    recipe: Recipe, registries: Registries, model: PolyvexForConditionalGeneration, start: Start | None
) -> list[str]:
    """Bring the model to what the first stage begins with; return why the weights do not fit."""
    if begins_sparse(recipe):
        _upcycle(recipe, registries, model)
    return start_problems(recipe, registries, model, start) if start is not None else []


def _upcycle(recipe: Recipe, registries: Registries, model: PolyvexForConditionalGeneration) -> None:
    if recipe.moe is None:
        return
    router = recipe.moe.router
    kind = registries.routers[router.use]
    install_experts(model.lm, recipe.moe, (kind, router), copy=False, context=model.context)
    model.adapt_language_model()


def unread_experts(lm: Any) -> bool:
    """Whether a language model is a mixture of experts by itself, with routers that polyvex cannot read."""
    config = lm.config.get_text_config()
    sparse = any(getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
    return not routers(lm) and bool(sparse or unread_routers(lm))
