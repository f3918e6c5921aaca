"""Find the class that checks a table, by the table's place in a recipe; unions are told apart by ``use``."""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel

Model = type[BaseModel]
Place = tuple[str | int, ...]


def choices_at(model: Model, place: Sequence[str | int], raw: Any) -> list[Model]:
    """The classes that a table at ``place`` may have: one for each component, where it names one by ``use``."""
    choices, data = [model], raw
    for step in place:
        if isinstance(step, str):
            here = class_of(choices, data)
            field = here.model_fields.get(step) if here else None
            choices = models_in(field.annotation) if field else []
        data = get(data, step)
    return choices


def class_at(model: Model, place: Sequence[str | int], raw: Any) -> Model | None:
    """The class of the table at ``place``, with the ``use`` that the recipe gives."""
    data = raw
    for step in place:
        data = get(data, step)
    return class_of(choices_at(model, place, raw), data)


def class_of(choices: Sequence[Model], table: Any) -> Model | None:
    """The class among ``choices`` for the ``use`` of a table; the first one if it has none that is known."""
    use = table.get("use") if isinstance(table, dict) else None
    return component_class(choices, use) or next(iter(choices), None)


def component_class(choices: Sequence[Model], use: Any) -> Model | None:
    """The class of the component that is called ``use``."""
    return next((one for one in choices if isinstance(use, str) and use in names_of(one)), None)


def names_of(model: Model) -> tuple[Any, ...]:
    """Names that the ``use`` of a class may have; empty for a table that names no component."""
    return get_args(model.model_fields["use"].annotation) if "use" in model.model_fields else ()


def models_in(annotation: Any) -> list[Model]:
    """All pydantic classes in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def get(data: Any, step: str | int) -> Any:
    """The value of a key or item; None if it is missing."""
    return data[step] if has(data, step) else None


def has(data: Any, step: str | int) -> bool:
    """Whether a table has a key, or a list an item."""
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data
