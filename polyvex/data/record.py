"""One line of a JSON Lines file: an object with known keys, each of one type, and what is wrong with any other."""

import difflib
import json
from collections.abc import Iterator
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from polyvex.data.check import described, path_problem, text_problem
from polyvex.errors import DataError
from polyvex.reading import clip

OTHER_NAMES = {
    "filename": "image",
    "file_name": "image",
    "path": "image",
    "picture": "image",
    "label": "answer",
    "caption": "answer",
    "response": "answer",
    "prompt": "question",
    "text": "question",
    "category": "kind",
    "type": "kind",
}
"""Keys of other programs' files, and ours for the same."""


class Record(BaseModel):
    """The keys of a line and their types; nothing is converted, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    question: str
    answer: str = ""
    answers: list[str] = Field(default=[], min_length=1)
    image: str = ""
    images: list[str] = []
    id: str = ""
    kind: str = "all"


def parse(text: str) -> dict[str, Any]:
    """A line as a JSON object, in which each key stands once.

    Raises:
        DataError: if it is something else; with the code ``data-array`` if it is or begins a list.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("["):
            raise _array() from None
        hint = ". An object must stand on one line" if text.strip() in ("{", "}", "},") else ""
        hint = hint or (". The file seems to be UTF-16 without a byte order mark" if "\0" in text else "")
        raise DataError(f"not JSON: {error.msg} at column {error.colno}{hint}") from None
    except RecursionError:
        raise DataError("the JSON is nested too deeply") from None
    except ValueError:  # Python reads no integers of more than 4300 digits
        raise DataError("a number has too many digits") from None
    if isinstance(value, list):
        raise _array()
    if not isinstance(value, dict):
        raise DataError(f"the line is {described(value)}; expected an object: {{…}}")
    return value


def _array() -> DataError:
    return DataError(
        "a JSON list; expected one object a line, without [ ] and commas. To convert a file: jq -c '.[]' FILE",
        code="data-array",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the key {clip(twice, 40)!r} stands there twice")
    return record


def _no_number(name: str) -> NoReturn:
    raise DataError(f"{name} is not JSON")


def check(raw: dict[str, Any]) -> tuple[Record | None, list[str]]:
    """A line's record, None if it has wrong keys or types, and all that is wrong with it."""
    record, problems = None, []
    try:
        record = Record.model_validate(raw)
    except ValidationError as error:
        problems += [_sentence(detail, raw) for detail in error.errors(include_url=False, include_input=False)]
    problems += _text_problems(raw)
    for one, several in (("answer", "answers"), ("image", "images")):
        if one in raw and several in raw:
            problems.append(f"{one} and {several} exclude each other; keep one of them")
    if "answer" not in raw and "answers" not in raw:
        problems.append("answer is missing; each line needs question and answer")
    return record, problems


def _text_problems(raw: dict[str, Any]) -> Iterator[str]:
    """What is wrong with texts and paths that have the right type."""
    for name, value in raw.items():
        if name not in Record.model_fields:
            continue
        wrong = path_problem if name.startswith("image") else text_problem
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and (problem := wrong(one)):
                yield f"{name} {problem}"


def _sentence(detail: ErrorDetails, raw: dict[str, Any]) -> str:
    """What pydantic found, for people."""
    name, *inside = detail["loc"]
    value = raw.get(str(name))
    if detail["type"] == "missing":
        return f"{name} is missing; each line needs question and answer"
    if detail["type"] == "extra_forbidden":
        return _unknown_key(str(name))
    if inside:
        return f"{name} contains {described(value[int(inside[0])])}; expected texts only"  # type: ignore[index]
    if detail["type"] == "too_short":
        return f"{name} is an empty list; expected at least one text"
    wanted = "a list of texts" if detail["type"] == "list_type" else "text"
    return f"{name} is {described(value)}; expected {wanted}{_way_out(str(name), value)}"


def _way_out(name: str, value: object) -> str:
    if value is None:
        return ". Leave the key out if there is none"
    if isinstance(value, list) and f"{name}s" in Record.model_fields:
        return f". Name the key {name}s"
    if isinstance(value, str):
        return f". Name the key {name.removesuffix('s')}"
    return ' in quotes, such as "2"' if isinstance(value, int | float) else ""


def _unknown_key(name: str) -> str:
    known = list(Record.model_fields)
    nearest = OTHER_NAMES.get(name.lower()) or next(
        iter(difflib.get_close_matches(name.lower(), known, cutoff=0.5)), ""
    )
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    return f"unknown key {clip(repr(name), 60)}.{hint} Known: {', '.join(known)}"
