"""easy-VQA: questions about one coloured shape on a 64 × 64 image, with 13 possible answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from polyvex.data.base import Dataset, DatasetOptions, Sample
from polyvex.encoders import find_in_wheel
from polyvex.errors import DataError

INSTALL = "pip install --no-deps easy-vqa==1.0"
AGAIN = "Install it again: pip install --force-reinstall --no-deps easy-vqa==1.0"
SPLITS = ("train", "test")
KINDS = {
    "yes/no": ("yes", "no"),
    "shape": ("circle", "rectangle", "triangle"),
    "color": ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"),
}
KIND_OF = {answer: kind for kind, answers in KINDS.items() for answer in answers}


class EasyVqaOptions(DatasetOptions):
    """Options of ``easy-vqa``."""

    limit: int = Field(
        default=0, ge=0, description="Samples per split, evenly spaced over it; 0 for all (38,575 train, 9,673 test)."
    )


class EasyVqa(Dataset[EasyVqaOptions]):
    """easy-VQA 1.0 by Victor Zhou: splits ``train`` and ``test``, kinds ``yes/no``, ``color`` and ``shape``.

    The id of a sample counts the questions of the whole split, such as ``train-000123``, so it stays the same
    whatever the limit. The wheel's package is never imported.
    """

    Options: ClassVar[type[DatasetOptions]] = EasyVqaOptions
    summary: ClassVar[str] = "easy-VQA: 48,248 questions about one coloured shape each; answers are single words"

    def __init__(self, options: EasyVqaOptions):
        super().__init__(options)

    def missing(self) -> str:
        """How to install the wheel, if it is not installed."""
        return "" if find_in_wheel("easy-vqa", "data/train/questions.json") else INSTALL

    def splits(self) -> list[str]:
        """``train`` and ``test``."""
        return list(SPLITS)

    def samples(self, split: str) -> Sequence[Sample]:
        """Samples of a split, in the order of its file.

        Raises:
            DataError: if the split is unknown, the wheel is missing, or its files are damaged.
        """
        if split not in SPLITS:
            raise DataError(f"easy-vqa has no split '{split}'. Known: {', '.join(SPLITS)}")
        path = find_in_wheel("easy-vqa", f"data/{split}/questions.json")
        if path is None:
            raise DataError(f"easy-vqa: no questions of the split '{split}' on this machine. To get them: {INSTALL}")
        rows = _read_rows(path)
        return [_sample(rows[index], index, split, path) for index in _evenly(len(rows), self.options.limit)]


def _evenly(count: int, limit: int) -> list[int]:
    """``limit`` indices spread over ``count``; all of them if the limit is 0 or too large.

    All questions of one image stand together, so the first ones would show few images.
    """
    if limit in (0, count) or limit > count:
        return list(range(count))
    return [place * count // limit for place in range(limit)]


def _read_rows(path: Path) -> list[object]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). {AGAIN}") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of questions, got {type(rows).__name__}. {AGAIN}")
    return rows


def _sample(row: object, index: int, split: str, path: Path) -> Sample:
    """One row ``[question, answer, number of the image]`` as a sample.

    Raises:
        DataError: if the row is something else, or the answer is none of the 13. Names the row.
    """
    match row:
        case [str(question), str(answer), int(image)] if answer in KIND_OF:
            return Sample(
                id=f"{split}-{index:06d}",
                question=question,
                answer=answer,
                images=(str(path.parent / "images" / f"{image}.png"),),
                kind=KIND_OF[answer],
            )
    raise DataError(
        f"{path}: row {index} is {row!r}; expected [question, one of {len(KIND_OF)} answers, number of the image]. "
        f"{AGAIN}"
    )
