"""Recognise strips: run the network, and spell what it says with the place of each word."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

from polyvex_ocr.strips import HEIGHT

STEP = 8
"""Pixels of a strip for each step of the recogniser."""

PADDED = 320
"""Strips are padded to a multiple of this width; PP-OCRv4 was trained on strips of this width."""

LEAST_SPACE = 0.05
"""A blank step counts as a space from this probability on. The network is shy of spaces: between words it often gives
them less than one half, but inside of words hardly ever a hundredth."""

TOGETHER = 8
"""How many strips are given to the network at once; more only takes memory."""

Network = Callable[[np.ndarray], Sequence[np.ndarray]]
"""From float32 pixels [strips 3 48 width] to features [strips dim 1 steps] and probabilities [strips steps characters].
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recognition:
    """What the network says of one strip: a step for each 8 pixels, padding included."""

    features: Float[np.ndarray, "steps dim"]
    probabilities: Float[np.ndarray, "steps characters"]


@dataclass(frozen=True, kw_only=True)
class Spelled:
    """A word on a strip: its text, the mean probability of its characters, and where it is, in steps."""

    text: str
    confidence: float
    start: float
    stop: float


def recognize(network: Network, strips: Sequence[UInt8[np.ndarray, "3 48 width"]]) -> list[Recognition]:
    """Run the network on RGB strips of any width, in their order.

    A strip's padding depends on its own width alone, so no strip changes what is read on another.
    """
    widths = [-(-strip.shape[2] // PADDED) * PADDED for strip in strips]
    found: dict[int, Recognition] = {}
    for width in sorted(set(widths)):
        same = [place for place, one in enumerate(widths) if one == width]
        for start in range(0, len(same), TOGETHER):
            chosen = same[start : start + TOGETHER]
            features, probabilities = network(_padded([strips[place] for place in chosen], width))
            for index, place in enumerate(chosen):
                found[place] = Recognition(features=features[index, :, 0].T, probabilities=probabilities[index])
    return [found[place] for place in range(len(strips))]


def _padded(strips: Sequence[UInt8[np.ndarray, "3 48 width"]], width: int) -> Float[np.ndarray, "strips 3 48 padded"]:
    """Blue, green and red from -1 to 1, and zeros behind."""
    batch = np.zeros((len(strips), 3, HEIGHT, width), dtype=np.float32)
    for row, strip in zip(batch, strips, strict=True):
        row[:, :, : strip.shape[2]] = strip[::-1] / np.float32(127.5) - np.float32(1.0)
    return batch


def alphabet(names: str) -> list[str]:
    """The character of each class: a blank first, those of the model's metadata, and a space last."""
    return ["", *names.splitlines(), " "]


def spell(probabilities: Float[np.ndarray, "steps characters"], characters: list[str], *, width: int) -> list[Spelled]:
    """The words of one strip, from left to right, by greedy decoding of CTC (Graves et al. 2006, best path).

    The most probable class of each step is taken, though a space rather than a blank from :data:`LEAST_SPACE` on;
    repetitions count once, blanks are dropped, and a space ends a word. CTC marks a character at about its middle.
    So a word reaches half a character's width to both sides of its first and last mark, but not over the middle
    between two words.

    Args:
        width: of the strip in pixels, without padding.
    """
    classes, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    space = len(characters) - 1
    classes = np.where((classes == 0) & (probabilities[:, space] >= LEAST_SPACE), space, classes)
    new = np.flatnonzero((classes != 0) & (classes != np.concatenate([[0], classes[:-1]])))
    marks = [(int(step) + 0.5, characters[classes[step]], float(best[step])) for step in new]
    half = float(np.median([after[0] - before[0] for before, after in pairwise(marks)])) / 2 if len(marks) > 1 else 1.0
    words = list(_split(marks))
    if not words:
        return []
    limit = min(len(classes), width / STEP)
    between = [(one[-1][0] + other[0][0]) / 2 for one, other in pairwise(words)]
    return [
        Spelled(
            text="".join(character for _, character, _ in word),
            confidence=sum(probability for _, _, probability in word) / len(word),
            start=max(before, word[0][0] - half),
            stop=min(after, word[-1][0] + half),
        )
        for word, before, after in zip(words, [0.0, *between], [*between, float(limit)], strict=True)
    ]


def _split(marks: list[tuple[float, str, float]]) -> Iterator[list[tuple[float, str, float]]]:
    word: list[tuple[float, str, float]] = []
    for mark in marks:
        if mark[1].isspace():
            if word:
                yield word
            word = []
        else:
            word.append(mark)
    if word:
        yield word
