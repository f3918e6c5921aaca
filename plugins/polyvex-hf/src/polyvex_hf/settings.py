"""Find the numbers of an image processor in the files that transformers writes, in the order in which it reads them."""

import json
import math
from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from polyvex_hf.processors import Settings

NESTED, OWN = "processor_config.json", "preprocessor_config.json"
"""transformers 5 stores the image processor of a ``ProcessorMixin`` in the first, under ``image_processor``; an image
processor that is saved alone, and all processors of earlier versions, are in the second."""

FILES = (NESTED, OWN)

Triple = tuple[float, float, float]


def find_settings(folder: Path | None) -> tuple[Path, Settings] | None:
    """The file that transformers would read, and its image processor; None if the folder has none.

    A nested image processor takes precedence over a file of its own, as in
    ``ImageProcessingMixin.get_image_processor_dict`` of transformers 5.23.

    Raises:
        ValueError: if a file is damaged. The message names it.
    """
    for name in FILES if folder else ():
        path = Path(folder or "", name)
        stored = _read(path) if path.is_file() else None
        found = stored.get("image_processor") if stored and name == NESTED else stored
        if found is not None:
            if not isinstance(found, dict):
                raise ValueError(f"{path}: image_processor is of type {type(found).__name__}; expected an object")
            return path, found
    return None


def _read(path: Path) -> Settings:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot follow this image processor: {error}") from None
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: cannot follow this image processor: expected a JSON object")
    return stored


def channels(key: str, value: Any) -> Triple:
    """One number per channel; a single number is that of each channel, as in transformers.

    Raises:
        ValueError: if there are not three finite numbers, or a deviation is not positive.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    numbers = [float(one) for one in values if isinstance(one, int | float) and math.isfinite(one)]
    if len(values) != 3 or len(numbers) != 3 or (key == "image_std" and min(numbers) <= 0):
        kind = "positive numbers" if key == "image_std" else "numbers"
        raise ValueError(f"{key} is {value}; expected three {kind}, one per channel, or one for all")
    return numbers[0], numbers[1], numbers[2]


def filter_of(value: Any) -> int:
    """Pillow's number of a resampling filter, from the number or the name.

    Raises:
        ValueError: if Pillow has no such filter.
    """
    named = {member.name.lower(): int(member) for member in Resampling}
    found = named.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, int) or isinstance(found, bool) or found not in named.values():
        known = ", ".join(f"{number} ({name})" for name, number in named.items())
        raise ValueError(f"resample is {value!r}; expected one of {known}")
    return found


def edge_of(key: str, size: Any, *, square: bool) -> tuple[int, bool]:
    """The side to which an image is resized, and whether its aspect ratio is kept.

    Args:
        square: the meaning of a single number: both sides, or the shorter one. Files before 2022 have such numbers, and
            each class of transformers has its own rule (``default_to_square``).

    Raises:
        ValueError: for other sizes than a square or a shorter side.
    """
    form = dict(zip(("height", "width"), size, strict=False)) if isinstance(size, list | tuple) else size
    if isinstance(form, int) and not isinstance(form, bool):
        form = {"height": form, "width": form} if square else {"shortest_edge": form}
    sides = {name: side for name, side in form.items() if side is not None} if isinstance(form, dict) else {}
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides.values())
    if whole and set(sides) == {"shortest_edge"}:
        return sides["shortest_edge"], True
    if whole and set(sides) == {"height", "width"} and sides["height"] == sides["width"]:
        return sides["height"], False
    raise ValueError(f"its {key} is {size}; expected shortest_edge, or height and width of a square")
