"""Words and boxes as LayoutLMv3 takes them: ids of its vocabulary, and places on a scale of 0 to 1000."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image
from torch import Tensor

from polyvex.errors import PluginError, WeightsError
from polyvex_layoutlmv3.structure import Structure
from polyvex_layoutlmv3.weights import find_beside

if TYPE_CHECKING:
    from polyvex_ocr import Word
    from transformers import LayoutLMv3Tokenizer

SCALE = 1000
"""Boxes are on a page of 1000 × 1000."""

FILES = ("vocab.json", "merges.txt")
"""What the tokenizer is made from."""

SPECIAL = ("<s>", "<pad>", "</s>")
"""Tokens with the ids 0, 1 and 2."""


class TextLeftOut(UserWarning):
    """An image has more text than the network is given places for."""


def check_reader() -> None:
    """Make sure that words can be read.

    Raises:
        PluginError: if polyvex-ocr is not installed.
    """
    try:
        import polyvex_ocr  # noqa: F401
    except ModuleNotFoundError as error:
        raise PluginError(
            f'words = "ocr" needs polyvex-ocr, which is not installed ({error}). pip install '
            f"'polyvex-layoutlmv3[ocr]', or set words = \"none\""
        ) from None


def find_tokenizer(weights: str, repository: str) -> tuple[Path, Path]:
    """The two files of the checkpoint's tokenizer.

    Raises:
        WeightsError: if one is missing. Says where it was looked for.
    """
    vocabulary, merges = (find_beside(weights, repository, name) for name in FILES)
    if vocabulary is None or merges is None:
        missing = " and ".join(name for name, path in zip(FILES, (vocabulary, merges), strict=True) if path is None)
        place = f"beside the weights at {weights}" if weights else "in the hub's local cache"
        raise WeightsError(
            f"words need the tokenizer's {missing}, not found {place}. hf download {repository} {' '.join(FILES)}, "
            'or set words = "none"'
        )
    return vocabulary, merges


@lru_cache(maxsize=4)
def load_tokenizer(vocabulary: Path, merges: Path, structure: Structure) -> "LayoutLMv3Tokenizer":
    """transformers' tokenizer of the two files.

    Raises:
        WeightsError: if they are unreadable, or of another model.
    """
    from transformers import LayoutLMv3Tokenizer

    try:
        tokenizer = LayoutLMv3Tokenizer(vocab=str(vocabulary), merges=str(merges))
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise WeightsError(f"{vocabulary}, {merges}: not readable as a tokenizer: {error}. Fetch both again") from None
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    if ids != [0, 1, 2] or len(tokenizer) > structure.vocabulary:
        raise WeightsError(
            f"{vocabulary}: the tokenizer of another model: {len(tokenizer):,} tokens, with the ids {ids} for "
            f"{' '.join(SPECIAL)}; expected at most {structure.vocabulary:,}, and [0, 1, 2]"
        )
    return tokenizer


def read_text(image: Image, tokenizer: "LayoutLMv3Tokenizer", *, places: int, detector_side: int) -> dict[str, Tensor]:
    """Read an upright image's words, and put them into ``places`` tokens; see :func:`to_tokens`."""
    from polyvex_ocr import read_words

    return to_tokens(read_words(image, side=detector_side), image.size, tokenizer, places)


def to_tokens(
    words: Sequence["Word"], size: tuple[int, int], tokenizer: "LayoutLMv3Tokenizer", places: int
) -> dict[str, Tensor]:
    """Ids, boxes and mask of an image's words, between a start and an end, padded to ``places``.

    What does not fit is left out from the end, with a :class:`TextLeftOut` that counts it.

    Args:
        size: width and height of the image in pixels, on which the words' boxes are.

    Returns:
        ``words`` Int64[places], ``boxes`` Int64[places 4] (left, top, right, bottom, from 0 to 1000), and ``mask``
        Int64[places], 1 where there is text.
    """
    boxes = [to_scale(word.box, size) for word in words]
    encoded = tokenizer([word.text for word in words], boxes=boxes, verbose=False)
    ids, placed = encoded["input_ids"], encoded["bbox"]
    if (surplus := len(ids) - places) > 0:
        warnings.warn(
            f"layoutlmv3: {surplus} of the {len(ids) - 2} tokens of an image's text are left out, because max_tokens "
            f"is {places}, start and end included",
            TextLeftOut,
            stacklevel=2,
        )
        ids, placed = [*ids[: places - 1], ids[-1]], [*placed[: places - 1], placed[-1]]
    rest = places - len(ids)
    return {
        "words": torch.tensor(ids + [tokenizer.pad_token_id] * rest),
        "boxes": torch.tensor(placed + [[0, 0, 0, 0]] * rest),
        "mask": torch.tensor([1] * len(ids) + [0] * rest),
    }


def to_scale(box: tuple[float, float, float, float], size: tuple[int, int]) -> list[int]:
    """A box in pixels on the scale of 0 to 1000, cut to whole numbers as transformers does."""
    return [min(SCALE, max(0, int(SCALE * edge / length))) for edge, length in zip(box, (*size, *size), strict=True)]
