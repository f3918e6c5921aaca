"""Read the JSON files of a run or an ablation; a damaged one is named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyvex.errors import RunError


def read_json(path: Path, *, needs: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object with at least the keys that it ``needs``.

    Raises:
        RunError: if the file is something else. It is named.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} holds {type(value).__name__}, expected an object")
    if lost := [key for key in needs if key not in value]:
        raise RunError(f"{path} lacks {', '.join(lost)}; was it written by another version of polyvex?")
    return value
