"""Begin with the weights of another run's stage: whether they fit, what else differs, and how they are taken over."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from polyvex.adapters import ADAPTER, PARTIAL
from polyvex.encoders.files import INDEX, weight_files
from polyvex.errors import RecipeError, WeightsError
from polyvex.hooks.manager import Registries
from polyvex.model.adapting import INSIDE
from polyvex.model.components import build_encoders
from polyvex.model.config import PolyvexConfig
from polyvex.model.modeling import PolyvexForConditionalGeneration
from polyvex.model.stored import loading
from polyvex.recipe.differences import differences
from polyvex.recipe.schema import Recipe
from polyvex.recipe.start import Start

NO_NUMBERS = {"_name_or_path", "architectures", "dtype", "transformers_version", "model_type", "use_cache"}
"""Keys of a language model's configuration that change nothing of what it computes while it trains."""

Model = PolyvexForConditionalGeneration


def empty_of(config: PolyvexConfig, registries: Registries, *, lm: Any = None) -> Model:
    """A model with the shapes of ``config`` and no memory. Encoders that are frozen are left out.

    Args:
        lm: its language model, if that is made already.
    """
    config.encoders_included = False
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False) if lm is None else lm
            own, _ = build_encoders(config, registries)
        return Model(config, lm=lm, encoders=own, registries=registries, connector="meta")


def start_problems(recipe: Recipe, registries: Registries, model: Model, start: Start) -> list[str]:
    """Why the weights of a stage cannot be those that ``model`` begins with; it may be on ``meta``. Reads none of them.

    Raises:
        WeightsError: if their files are damaged.
        PluginError: if a plugin that brought a part of that model is not installed.
    """
    for path in weight_files(start.weights):
        _check_whole(path)
    there = empty_of(_config_of(start), registries)
    return _misfits(recipe, model, start, there.state_dict())


def _config_of(start: Start) -> PolyvexConfig:
    with loading(start.model):
        return PolyvexConfig.from_pretrained(start.model)


@torch.no_grad()
def take_weights(recipe: Recipe, registries: Registries, model: Model, start: Start) -> None:
    """Load the weights of a stage into ``model``, every one of them: nothing may be missing, left over or reshaped.

    Frozen encoders are not part of that, nor are those that learn here and were frozen there: they keep theirs. The
    language model may have adapters here that it had not there; they start without effect.

    Raises:
        WeightsError: if the files are damaged or lack something.
        RecipeError: if they are another model's. Tells every key that does not fit, and what the recipes differ in.
    """
    # By its own configuration, since transformers stores some language models under other names than it runs them.
    with loading(start.model):
        state = Model.from_pretrained(start.model, registries=registries).state_dict()
    if problems := _misfits(recipe, model, start, state):
        raise RecipeError(problems, source=recipe.name)
    given = {_place(name): state[name] for name in list(state)}
    state.clear()
    for name, value in _wanted(model, start).items():
        if name in given:  # adapters of the language model may be new
            value.copy_(given.pop(name))  # which frees it: two copies of a large model need not stay


def spoilt_weights(start: Start) -> list[str]:
    """Names of a stage's weights that hold something else than numbers; this reads all of them, one after another."""
    found = []
    for path in weight_files(start.weights):
        if not path.name.endswith(INDEX):
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if not torch.isfinite(file.get_tensor(name)).all()]  # noqa: SIM118
            found += names
    return found


def unlike(recipe: Recipe, model: Model, start: Start) -> list[str]:
    """Where the tables that make a model differ from those that made the stage's, one line per value."""
    configs = [_plain(one) for one in (_config_of(start), model.config)]
    there, here = ({part: config[part] for part in ("encoders", "fusion", "positions")} for config in configs)
    if start.sparse and recipe.moe is not None:
        there["moe"], here["moe"] = configs[0]["moe"], json.loads(recipe.moe.model_dump_json())
    for table, options in [*_located(there, recipe), *_located(here, recipe)]:
        for key in options.path_options():
            table.pop(key, None)
    lms = [of["lm"] for of in (start.recipe, recipe.dump())]
    lm_there, lm_here = ({key: value for key, value in lm.items() if key != "attention"} for lm in lms)
    computed_there, computed_here = (_computed(config["text_config"]) for config in configs)
    of_lm = list(differences(lm_there, lm_here, "lm"))
    of_lm = of_lm or list(differences(computed_there, computed_here, "the language model's config"))
    return [*differences(there, here), *of_lm]


def _plain(config: PolyvexConfig) -> dict[str, Any]:
    """A configuration as JSON has it, with every default."""
    return json.loads(config.to_json_string(use_diff=False))


def _located(config: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[dict[str, Any], Any]]:
    """Tables that may name files, whose places do not count, with the options that know which keys those are."""
    yield config["fusion"], recipe.fusion
    yield from zip(config["encoders"], recipe.encoders, strict=False)


def _computed(text_config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in text_config.items() if key not in NO_NUMBERS and "attn" not in key}


def _misfits(recipe: Recipe, model: Model, start: Start, state: Mapping[str, Tensor]) -> list[str]:
    """One sentence with every key of two models that does not fit, and what made it so; nothing if all do."""
    wanted = _wanted(model, start)
    given = {_place(name): tuple(state[name].shape) for name in state if not _is_of(name, _frozen(start))}
    shapes = [
        f"{name} ({list(given[name])} there, {list(value.shape)} here)"
        for name, value in wanted.items()
        if name in given and given[name] != value.shape
    ]
    found = {
        "missing there": sorted(name for name in set(wanted) - set(given) if not _is_adapter(name)),
        "unexpected here": sorted(set(given) - set(wanted)),
        "of another shape": sorted(shapes),
    }
    if not any(found.values()):
        return []
    keys = "; ".join(f"{word}: {', '.join(names)}" for word, names in found.items() if names)
    why = "; ".join(unlike(recipe, model, start)) or "nothing that a recipe says; perhaps a plugin's version does"
    return [
        f"[start]: the weights of {start}, are not this model's. {keys}. What differs: {why}. Make these tables as "
        f"they are in {start.run / 'recipe.toml'}, or start from another run"
    ]


def _wanted(model: Model, start: Start) -> dict[str, Tensor]:
    """The weights that the stage must bring: all but those of encoders that are frozen here, or were there."""
    frozen = {name for name, table in model.encoder_tables.items() if table.tune == "frozen"} | _frozen(start)
    return {_place(name): value for name, value in model.state_dict().items() if not _is_of(name, frozen)}


def _place(weight: str) -> str:
    """A weight's name as it is without adapters around the language model's layers."""
    if not weight.startswith("lm.") or _is_adapter(weight):
        return weight
    return weight.replace(INSIDE, "")


def _is_adapter(weight: str) -> bool:
    return weight.startswith("lm.") and (PARTIAL in weight or f".{ADAPTER}" in weight)


def _frozen(start: Start) -> set[str]:
    """Names of the encoders that were frozen there; the model of a finished run holds them too."""
    return {table["name"] for table in start.config.get("encoders") or []} - set(start.brings)


def _is_of(weight: str, encoders: set[str]) -> bool:
    part, _, rest = weight.partition(".")
    return part == "encoders" and rest.partition(".")[0] in encoders


def _check_whole(path: Any) -> None:
    if path.name.endswith(INDEX):
        return
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"the weights in {path} are damaged: {error}. Store or fetch them again") from None
