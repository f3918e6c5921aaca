"""Pictures with labels for the linear probe: scikit-learn's digits, easy-VQA's shapes, and rendered words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from polyvex_easyvqa import EasyVqa, EasyVqaOptions

from polyvex.encoders.images import open_image

WORDS = ("invoice", "harbour", "winter", "copper", "lantern", "garden", "silver", "market", "window", "planet")
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono", "STIXGeneral")
SIDE = 128
"""Side of the pictures with rendered words."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures in an order in which every start is a fair sample, the test ones last, and labels by question.

    ``asked`` limits a question to some of the pictures: the others have no answer to it.
    """

    images: list[Image.Image]
    labels: dict[str, np.ndarray]
    test: int
    asked: dict[str, np.ndarray]

    @property
    def train(self) -> int:
        """How many pictures may be trained on."""
        return len(self.images) - self.test


def digits(train: int, test: int, seed: int = 0) -> Pictures:
    """Some of the 1,797 handwritten digits of scikit-learn, 8 × 8 pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = np.random.default_rng(seed).permutation(len(data.images))[: train + test]
    images = [Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in data.images[chosen]]
    return _asked_of_all(images, {"digit": data.target[chosen]}, test)


def shapes(train: int, test: int, seed: int = 0) -> Pictures:
    """Images of easy-VQA, 64 × 64 pixels, whose questions give away both shape and colour, from its own two splits."""
    rng = np.random.default_rng(seed)
    rows = _shapes_of("train", train, rng) + _shapes_of("test", test, rng)
    labels = {name: np.array([row[place] for row in rows]) for place, name in ((1, "shape"), (2, "color"))}
    return _asked_of_all([open_image(row[0]) for row in rows], labels, test)


def _shapes_of(split: str, count: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Path, shape and colour of some images of a split."""
    answers: dict[str, dict[str, str]] = {}
    for sample in EasyVqa(EasyVqaOptions()).samples(split):
        answers.setdefault(sample.images[0], {})[sample.kind] = sample.answer
    rows = [(path, known["shape"], known["color"]) for path, known in answers.items() if {"shape", "color"} <= {*known}]
    if len(rows) < count:
        raise ValueError(f"easy-VQA has {len(rows)} such images in {split}, not {count}")
    return [rows[place] for place in rng.permutation(len(rows))[:count]]


def words(train: int, test: int, seed: int = 0) -> Pictures:
    """Pictures of one word each, or of as many strokes and shapes, at any place, in any font, size and colour.

    ``text`` asks whether there is a word, ``word`` which of the ten it is.
    """
    rng = np.random.default_rng(seed)
    images, has_text, word = [], [], []
    for _ in range(train + test):
        image = _ground(rng)
        written = bool(rng.random() < 0.7)
        chosen = int(rng.integers(len(WORDS)))
        size = int(rng.integers(14, 27))
        font = ImageFont.truetype(_font(str(rng.choice(FONTS))), size)
        left, top, right, bottom = (int(edge) for edge in font.getbbox(WORDS[chosen]))
        x = int(rng.integers(0, max(1, SIDE - (right - left))))
        y = int(rng.integers(0, SIDE - (bottom - top)))
        ink = _ink(rng, image)
        if written:
            ImageDraw.Draw(image).text((x - left, y - top), WORDS[chosen], fill=ink, font=font)
        else:
            _scribble(rng, image, (x, y, x + right - left, y + bottom - top), ink, marks=len(WORDS[chosen]))
        images.append(image)
        has_text.append(written)
        word.append(chosen)
    labels = {"text": np.array(has_text).astype(int), "word": np.array(word)}
    everywhere = np.ones(len(images), dtype=bool)
    return Pictures(images=images, labels=labels, test=test, asked={"text": everywhere, "word": np.array(has_text)})


def _asked_of_all(images: list[Image.Image], labels: dict[str, np.ndarray], test: int) -> Pictures:
    asked = {name: np.ones(len(images), dtype=bool) for name in labels}
    return Pictures(images=images, labels=labels, test=test, asked=asked)


@cache
def _font(name: str) -> str:
    """Path of a font that matplotlib brings along."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")


def _ground(rng: np.random.Generator) -> Image.Image:
    """A slope between two colours, with noise."""
    start, stop = rng.uniform(0, 255, (2, 3))
    angle = rng.uniform(0, 2 * math.pi)
    rows, cols = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5
    along = (0.5 + (rows * math.sin(angle) + cols * math.cos(angle)) / math.sqrt(2))[..., None]
    values = start * (1 - along) + stop * along + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _ink(rng: np.random.Generator, image: Image.Image) -> tuple[int, int, int]:
    """A colour that stands out from the middle of the ground: 60 or more from it in the mean of the channels."""
    middle = np.asarray(image, dtype=np.float64).mean(axis=(0, 1))
    while True:
        red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
        if abs(np.array([red, green, blue]) - middle).mean() >= 60:
            return red, green, blue


def _scribble(
    rng: np.random.Generator, image: Image.Image, box: Sequence[int], ink: tuple[int, int, int], *, marks: int
) -> None:
    """As many marks as the word has letters, in its place: strokes, arcs and frames as thick as letters are."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    width = max(1, (bottom - top) // 8)
    for place in range(marks):
        start, stop = (left + (right - left) * part // marks for part in (place, place + 1))
        across = sorted(int(edge) for edge in rng.integers(start, max(stop, start + 4), 2))
        down = sorted(int(edge) for edge in rng.integers(top, max(bottom, top + 4), 2))
        corners = (across[0], down[0], across[1] + 2, down[1] + 2)
        kind = rng.integers(3)
        if kind == 0:
            draw.line(corners, fill=ink, width=width)
        elif kind == 1:
            draw.rectangle(corners, outline=ink, width=width)
        else:
            draw.arc(corners, int(rng.integers(360)), int(rng.integers(360)), fill=ink, width=width)
