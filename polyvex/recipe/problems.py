"""Turn the checker's findings into sentences for people: where, what was got, what was expected, nearest names."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from polyvex.hooks.registry import unknown
from polyvex.reading import clip
from polyvex.recipe.walk import choices_at, class_at, get, has, names_of

KIND_OF = {
    "encoders": "encoder",
    "fusion": "fusion",
    "positions": "position scheme",
    "lm": "language model",
    "data": "data set",
    "router": "router",
}
TYPES = {
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "float",
    "string_type": "string",
    "bool_type": "true or false",
    "list_type": "list",
    "dict_type": "table",
    "model_type": "table",
    "model_attributes_type": "table",
}


def explain(error: ValidationError, model: type[BaseModel], raw: dict[str, Any]) -> list[str]:
    """One sentence for each problem, in the order of the recipe; several readings of one value are joined."""
    sentences: list[str] = []
    groups = _without_readings(_by_place(error.errors(), raw))
    misnamed = {place[:-1] for place, group in groups.items() if place[-1:] == ("use",) and _is_literal(group[0])}
    for place, group in groups.items():
        if place[:-1] in misnamed and place[-1] != "use":
            continue  # checked against another component's options, so it says nothing
        sentence = _sentence(place, group, model, raw)
        if sentence not in sentences:
            sentences.append(sentence)
    return sentences


def _without_readings(
    groups: dict[tuple[str | int, ...], list[ErrorDetails]],
) -> dict[tuple[str | int, ...], list[ErrorDetails]]:
    """Leave out "this is no int" where the value was also read as a list or table, and the fault lies inside it."""
    return {
        place: group
        for place, group in groups.items()
        if not (
            all(detail["type"] in TYPES for detail in group)
            and any(len(other) > len(place) and other[: len(place)] == place for other in groups)
        )
    }


def _is_literal(detail: ErrorDetails) -> bool:
    return detail["type"] == "literal_error"


def _by_place(details: list[ErrorDetails], raw: dict[str, Any]) -> dict[tuple[str | int, ...], list[ErrorDetails]]:
    groups: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for detail in details:
        missing_key = detail["type"] in ("missing", "union_tag_not_found")
        place = _place(detail["loc"], raw, keep_last=missing_key and detail["type"] == "missing")
        groups.setdefault(place, []).append(detail)
    return groups


def _place(loc: tuple[str | int, ...], raw: Any, *, keep_last: bool) -> tuple[str | int, ...]:
    """The part of a location that is also in the file: the checker adds the names of union members."""
    place: list[str | int] = []
    here: Any = raw
    for index, step in enumerate(loc):
        if has(here, step):
            here = here[step]
        elif not (keep_last and index == len(loc) - 1):
            continue
        place.append(step)
    return tuple(place)


def _sentence(  # noqa: PLR0911 - one return for each kind of problem
    place: tuple[str | int, ...], group: list[ErrorDetails], model: type[BaseModel], raw: Any
) -> str:
    detail = group[0]
    table, key = place[:-1], str(place[-1]) if place else ""
    kind = detail["type"]
    if kind == "missing":
        return f"{_table(table, raw)}: missing key '{key}'{_described(model, table, key, raw)}"
    if kind == "union_tag_not_found":
        known = ", ".join(_known_uses(model, place, raw))
        return f"{_table(place, raw)}: missing key 'use', which names the {_kind(place)}. Known: {known}"
    if kind == "union_tag_invalid" or (kind == "literal_error" and key == "use"):
        where = place[:-1] if kind == "literal_error" else place
        tags = [tag.strip(" '") for tag in _tags(detail).replace(" or ", ",").split(",")]
        return f"{_table(where, raw)}: {unknown(_kind(where), _got_use(detail), [tag for tag in tags if tag])}"
    if kind == "extra_forbidden":
        known = _keys(model, table, raw)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f", did you mean '{near[0]}'?" if near else "."
        return f"{_table(table, raw)}: unknown key '{key}'{hint} Known: {', '.join(known)}"
    wants = " or ".join(dict.fromkeys(_wants(one) for one in group))
    if kind == "value_error" and isinstance(detail["input"], dict):
        return f"{_table(place, raw)}: {wants}"
    got = clip(repr(detail["input"]))
    if len(place) > 1 and isinstance(place[-1], int):
        return f"{_table(place[:-2], raw)}: item {place[-1] + 1} of {place[-2]} is {got}, expected {wants}"
    return f"{_table(table, raw)}: {key} is {got}, expected {wants}"


def _wants(detail: ErrorDetails) -> str:
    if detail["type"] in TYPES:
        return TYPES[detail["type"]]
    if detail["type"] == "value_error":
        return str(detail.get("ctx", {}).get("error", detail["msg"]))
    context = detail.get("ctx", {})
    if detail["type"] == "too_short":
        return f"at least {context['min_length']} item" + ("s" if context["min_length"] != 1 else "")
    if detail["type"] == "string_pattern_mismatch":
        return f"text of the form {context['pattern']}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return message[0].lower() + message[1:]


def _table(place: tuple[str | int, ...], raw: Any) -> str:
    """Write a location as the file's reader sees it: ``[[encoders]] #2 (sam)``, ``[moe.router]``, ``top level``."""
    if not place:
        return "top level"
    if len(place) > 1 and isinstance(place[1], int):
        item = get(get(raw, place[0]), place[1])
        named = (get(item, "name") or get(item, "use")) if isinstance(item, dict) else None
        who = f" ({clip(named)})" if isinstance(named, str) else ""
        rest = "".join(f".{step}" for step in place[2:])
        return f"[[{place[0]}]] #{place[1] + 1}{who}{rest}"
    return f"[{'.'.join(map(str, place))}]"


def _kind(place: tuple[str | int, ...]) -> str:
    words = [step for step in place if isinstance(step, str)]
    return KIND_OF.get(words[-1], words[-1]) if words else "component"


def _tags(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if "expected_tags" in context:
        return str(context["expected_tags"])
    if "expected" in context:
        return str(context["expected"])
    return ""


def _got_use(detail: ErrorDetails) -> str:
    got = detail.get("ctx", {}).get("tag", detail["input"])
    return got.get("use", "?") if isinstance(got, dict) else str(got)


def _keys(model: type[BaseModel], place: tuple[str | int, ...], raw: Any) -> list[str]:
    found = class_at(model, place, raw)
    return sorted(found.model_fields) if found else []


def _known_uses(model: type[BaseModel], place: tuple[str | int, ...], raw: Any) -> list[str]:
    """Names that a table's ``use`` may have."""
    return sorted(str(name) for one in choices_at(model, place, raw) for name in names_of(one))


def _described(model: type[BaseModel], place: tuple[str | int, ...], key: str, raw: Any) -> str:
    found = class_at(model, place, raw)
    field = found.model_fields.get(key) if found else None
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""
