"""Write the tables of ``recipes.md`` from the classes that check recipes: ``python docs/generate_reference.py``.

A line ``<!-- table NAME -->`` is followed by what is generated, up to ``<!-- end -->``; all else is written by hand.
"""

import html
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from polyvex.adapters import LanguageModelLoRA, LoRA, PartialLoRATable
from polyvex.catalog import option_rows
from polyvex.encoders.tiling import Tiling
from polyvex.hooks.manager import KINDS, load_registries
from polyvex.recipe import schema
from polyvex.recipe.model import DataKeys, EncoderKeys, FusionKeys, LMKeys

PAGE = Path(__file__).with_name("recipes.md")
MARKED = re.compile(r"(?P<start><!-- table (?P<name>[a-z_.-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)

FIXED: dict[str, type[BaseModel]] = {
    "recipe": schema.Recipe,
    "encoders": EncoderKeys,
    "encoders.tiling": Tiling,
    "encoders.lora": LoRA,
    "fusion": FusionKeys,
    "lm": LMKeys,
    "lm.lora": LanguageModelLoRA,
    "lm.partial_lora": PartialLoRATable,
    "moe": schema.MoETable,
    "prompt": schema.PromptTable,
    "data": DataKeys,
    "start": schema.StartTable,
    "loss": schema.LossTable,
    "cache": schema.CacheTable,
    "training": schema.TrainingTable,
    "stages": schema.Stage,
    "evaluation": schema.EvaluationTable,
    "ablation": schema.AblationTable,
}
"""Name of a marker to the class of the table that does not depend on plugins."""

TABLES = ("encoders", "reduce", "fusion", "positions", "lm", "router", "data")
"""Keys whose table depends on plugins, so that the fixed classes call it anything."""

WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any value", type(None): "nothing"}
PLURALS = {
    "text": "texts",
    "integer": "integers",
    "number": "numbers",
    "table": "tables",
    "any value": "any values",
    "list of integers": "lists of integers",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "at least"}


def render(page: str) -> str:
    """The page with every generated part made anew.

    Raises:
        KeyError: if a marker names no table.
    """
    parts = dict(generated())
    return MARKED.sub(lambda found: f"{found['start']}\n{parts[found['name']]}\n{found['end']}", page)


def generated() -> Iterator[tuple[str, str]]:
    """Each generated part by the name of its marker."""
    for name, model in FIXED.items():
        yield name, table(model)
    registries = load_registries(third_party=False)
    for kind in KINDS:
        entries = [
            (entry.name, entry.component.summary, getattr(entry.component, "Options", None))
            for entry in getattr(registries, kind)
        ]
        if entries:
            yield f"core.{kind}", "\n".join(component(*entry) for entry in entries)


def component(name: str, summary: str, options: type[BaseModel] | None) -> str:
    """One component of the core: its name, its line, its options."""
    head = f"**`{name}`**: {html.escape(summary, quote=False)}.\n"
    return f"{head}\n{table(options)}" if options and options.model_fields else head


def table(model: type[BaseModel]) -> str:
    """The keys of a table of a recipe."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for row in option_rows(model):
        field = model.model_fields[row["name"]]
        default = "required" if field.is_required() else _default(field, row["default"])
        meaning = html.escape(row["description"], quote=False) or f"See `[{row['name']}]` below."
        cells = (f"`{row['name']}`", _value(row["name"], field), default, meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo, written: str) -> str:
    if field.default is None:
        return "left out"
    return "its defaults" if isinstance(field.default, BaseModel) else f"`{written}`"


def _value(name: str, field: FieldInfo) -> str:
    words = _type(field.annotation)
    if name in TABLES:
        words = words.replace("any value", "table")
    bounds = [f"{BOUNDS[name]} {limit:g}" for name, limit in _limits(field.metadata)]
    return f"{words}, {' and '.join(bounds)}" if bounds else words


def _limits(metadata: list[Any]) -> Iterator[tuple[str, float]]:
    for one in metadata:
        for name in BOUNDS:
            if (limit := getattr(one, name, None)) is not None:
                yield name, limit


def _type(kind: Any) -> str:
    """A type in the words of somebody who writes TOML."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in WORDS or origin is Annotated:
        return WORDS[kind] if kind in WORDS else _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in inner if one is not type(None))
    if origin in (list, dict):
        return f"{'list' if origin is list else 'table'} of {PLURALS.get(_type(inner[-1]), _type(inner[-1]))}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    raise TypeError(f"no word for the type {kind!r}")


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
