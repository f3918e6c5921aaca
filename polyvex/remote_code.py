"""Code that a checkpoint brings along: polyvex never runs it, and names the files that ask for it."""

import json
from pathlib import Path
from typing import Any

GENERATE = "custom_generate/generate.py"
"""Where transformers looks for a checkpoint's own way to generate."""

WAY_OUT = (
    "polyvex runs no code from checkpoints. Use a model whose class is part of transformers, or save this one with "
    "such a class (save_pretrained) and without `auto_map`"
)


def remote_code(folder: str | Path) -> list[str]:
    """Files of a checkpoint's folder that name code of its own (``auto_map``), or that are such code.

    Returns:
        Names relative to ``folder``, sorted. Empty if there are none, or if ``folder`` is no folder.
    """
    place = Path(folder)
    if not place.is_dir():
        return []
    found = [path.name for path in sorted(place.glob("*.json")) if _names_code(path)]
    return found + [GENERATE] * (place / GENERATE).is_file()


def _names_code(path: Path) -> bool:
    try:
        return _has_auto_map(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads the file reports that it is damaged


def _has_auto_map(value: Any) -> bool:
    return isinstance(value, dict) and ("auto_map" in value or any(_has_auto_map(one) for one in value.values()))
