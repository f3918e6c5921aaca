"""Write a complete, commented recipe from a few choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel
from tomlkit.items import AoT, Table

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry, unknown
from polyvex.recipe.read import parse_recipe
from polyvex.recipe.schema import Recipe

MOE_CHOICES = ("none", "sparse", "dense", "first_half", "second_half")


@dataclass(frozen=True)
class Choices:
    """What a person chose; empty takes the usual choice.

    ``options`` are set in a component's table, by the table's key: ``data``, ``lm``, or ``encoders.0`` for the first.
    """

    encoders: list[str] = field(default_factory=list)
    fusion: str = ""
    positions: str = ""
    lm: str = ""
    moe: str = ""
    data: str = ""
    name: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def compose_recipe(
    choices: Choices, registries: Registries, *, overrides: Sequence[str] = (), file: Path | None = None
) -> str:
    """The text of a recipe: every key with its value, its meaning in a comment. Checked before it is returned.

    Args:
        file: where it will be written; named in its first lines.

    Raises:
        RecipeError: lists every name that is unknown, and whatever else cannot work.
    """
    problems = _unknown_names(choices, registries)
    if problems:
        raise RecipeError(problems, source="compose")
    recipe = parse_recipe(_raw(choices, registries), overrides=overrides, registries=registries, source="compose")
    return _commented(recipe, choices, str(file or "THIS_FILE"))


def _unknown_names(choices: Choices, registries: Registries) -> list[str]:
    problems = [] if choices.encoders else ["no --encoder given. Names: polyvex encoders"]
    named: list[tuple[Registry[Any], str]] = [(registries.encoders, name) for name in choices.encoders]
    named += [(registries.fusions, choices.fusion), (registries.position_schemes, choices.positions)]
    for registry, name in named:
        if name and name not in registry:
            problems.append(unknown(registry.kind, name, registry.names()))
    if choices.data and choices.data not in registries.datasets and not Path(choices.data).is_dir():
        problems.append(
            unknown("data set", choices.data, registries.datasets.names()) + ", or a folder of .jsonl files"
        )
    if not _is_language_model(choices.lm or "small-llama", registries):
        known = unknown("language model", choices.lm, registries.language_models.names())
        problems.append(f"{known}, or a directory, or owner/name on the hub")
    if choices.moe and choices.moe not in MOE_CHOICES:
        problems.append(unknown("choice of --moe", choices.moe, list(MOE_CHOICES)))
    return problems


def _raw(choices: Choices, registries: Registries) -> dict[str, Any]:
    sparse = (choices.moe or "none") != "none"
    raw: dict[str, Any] = {
        "name": choices.name or "-".join([*choices.encoders, choices.fusion or "mlp"]),
        "encoders": [
            {"use": name, **choices.options.get(f"encoders.{index}", {})} for index, name in enumerate(choices.encoders)
        ],
        "fusion": {"use": choices.fusion or "mlp", **choices.options.get("fusion", {})},
        "positions": {"use": choices.positions or "sequential", **choices.options.get("positions", {})},
        "lm": {**_lm(choices.lm or "small-llama", registries), **choices.options.get("lm", {})},
        "data": {**_data(choices.data, registries), **choices.options.get("data", {})},
        "stages": _stages(choices.lm or "small-llama", registries, sparse=sparse),
    }
    if sparse:
        raw["moe"] = {"layers": choices.moe, "router": {"use": "top_k"}}
    return raw


def _is_language_model(name: str, registries: Registries) -> bool:
    return name in registries.language_models or "/" in name or Path(name).is_dir()


def _lm(name: str, registries: Registries) -> dict[str, Any]:
    return {"use": name} if name in registries.language_models else {"use": "pretrained", "checkpoint": name}


def _data(name: str, registries: Registries) -> dict[str, Any]:
    if name and name not in registries.datasets:
        return {"use": "jsonl", "folder": name}
    others = [entry for entry in registries.datasets.names() if entry != "jsonl"]
    chosen = name or (others[0] if others else "jsonl")
    return {"use": chosen, "folder": "data"} if chosen == "jsonl" else {"use": chosen}


def _stages(lm: str, registries: Registries, *, sparse: bool) -> list[dict[str, Any]]:
    """The stages of MoE-LLaVA; before them, a language model from random weights learns the language."""
    fresh = lm in registries.language_models and not registries.language_models[lm].pretrained
    rate = 2e-3 if fresh else 2e-5
    stages: list[dict[str, Any]] = []
    if fresh:
        stages.append({"name": "language", "trains": ["lm"], "steps": 100, "lr": rate, "warmup": 20, "images": False})
    stages += [
        {"name": "align", "trains": ["connector"], "steps": 500, "lr": 1e-3, "warmup": 20},
        {"name": "tune", "trains": ["connector", "lm"], "steps": 1000, "lr": rate, "warmup": 50},
    ]
    if sparse:
        stages.append(
            {"name": "experts", "trains": ["lm.moe"], "steps": 500, "lr": rate / 2, "warmup": 20, "upcycle": True}
        )
    return stages


def _commented(recipe: Recipe, choices: Choices, file: str) -> str:
    document = tomlkit.document()
    document.add(tomlkit.comment(f"{recipe.name}: {' + '.join(choices.encoders)}, by polyvex compose."))
    document.add(tomlkit.comment(f"What it needs and costs: polyvex plan {file}"))
    document.add(tomlkit.comment(f"Run it:                  polyvex train {file} --out runs/{recipe.name}"))
    document.add(tomlkit.comment("Cost and result:         not measured yet."))
    document.add(tomlkit.nl())
    _fill(document, recipe)
    return tomlkit.dumps(document)


def _fill(container: Any, values: BaseModel, *, skip: tuple[str, ...] = ()) -> None:
    """Write a model's plain values with their meaning in a comment, then its tables."""
    fields = type(values).model_fields
    order = sorted(fields, key=lambda key: key != "use")
    tables = [key for key in order if _is_table(getattr(values, key))]
    for key in [key for key in order if key not in tables and key not in skip]:
        value = getattr(values, key)
        if value is None:
            continue
        item = tomlkit.item(value)
        container.add(key, item)
        if description := fields[key].description:
            item.comment(" ".join(description.split()))
    for key in tables:
        container.add(key, _table(getattr(values, key)))


def _is_table(value: Any) -> bool:
    return isinstance(value, BaseModel) or (isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel))


def _table(value: BaseModel | list[BaseModel]) -> Table | AoT:
    if isinstance(value, list):
        tables = tomlkit.aot()
        for entry in value:
            tables.append(_table(entry))  # type: ignore[arg-type]
        return tables
    table = tomlkit.table()
    _fill(table, value)
    return table
