"""Read files of a run or an ablation; a damaged one is reported by name, with what is wrong with it."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from polyvex.errors import RunError

SHOWN = 10
"""Problems of a file that an error lists."""

T = TypeVar("T")
R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """A JSON object on disk. Keys that it does not name are kept, so that later versions may add some."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=())

    version: int = 1
    """1 is also the version of files that have none."""

    @field_validator("version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version != 1:
            raise ValueError("another version of polyvex wrote this file; expected version 1")
        return version


def read_record(path: Path, model: type[R]) -> R:
    """Read a JSON file.

    Raises:
        RunError: with the code ``damaged-record``, listing every problem of the file.
    """
    try:
        return model.model_validate_json(_content(path))
    except ValidationError as error:
        raise damaged(path, describe(error)) from None


def read_lines(path: Path, model: Any, *, sha256: str | None = None) -> list[Any]:
    """Read a ``.jsonl`` file; empty if it does not exist. A last line that was cut while it was written is dropped.

    Args:
        model: type of each line: a model, or a data class.
        sha256: digest that the file must have, if it is known; then the file must exist.

    Raises:
        RunError: with the code ``damaged-record``, listing the lines that are damaged.
    """
    if not path.exists() and sha256 is None:
        return []
    adapter = TypeAdapter(model)
    found, problems = [], []
    content = _content(path)
    lines = content.split(b"\n")  # str.splitlines() also cuts at U+2028
    whole = len(lines) - 1
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            found.append(adapter.validate_json(line, strict=True))
        except ValidationError as error:
            if number <= whole or error.errors()[0]["type"] != "json_invalid":
                problems += [f"line {number}: {problem}" for problem in describe(error)]
    if problems:
        raise damaged(path, problems)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(path, ["it is not the file that belongs to its summary (the SHA-256 differs)"])
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file that polyvex wrote.

    Raises:
        RunError: with the code ``damaged-record``.
    """
    try:
        return tomllib.loads(_content(path).decode("utf-8"))
    except RecursionError:
        raise damaged(path, ["not valid TOML: it is nested too deeply"]) from None
    except ValueError as error:  # not TOML, not UTF-8, or an integer of thousands of digits
        raise damaged(path, [f"not valid TOML: {error}"]) from None


def damaged(path: Path, problems: list[str]) -> RunError:
    """The error for a file that is not what polyvex writes."""
    more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    shown = "".join(f"\n  - {problem}" for problem in [*problems[:SHOWN], *more])
    return RunError(f"{path} is damaged:{shown}\nRestore the file, or create it again", code="damaged-record")


def describe(error: ValidationError) -> list[str]:
    """One sentence for each problem: where it is, and what was expected there; values of the file are not repeated."""
    return [
        f"{place}: {one['msg']}" if (place := ".".join(map(str, one["loc"]))) else one["msg"]
        for one in error.errors(include_url=False, include_input=False)
    ]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}", code="damaged-record") from None
