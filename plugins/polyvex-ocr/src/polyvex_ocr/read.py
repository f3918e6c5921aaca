"""Read the words of a picture."""

from dataclasses import dataclass

from PIL.Image import Image

from polyvex.encoders.images import to_rgb
from polyvex_ocr.files import DETECTOR, RECOGNIZER
from polyvex_ocr.graph import run, session_of
from polyvex_ocr.lines import DETECTOR_SIDE, Line, find_lines
from polyvex_ocr.recognize import STEP, Spelled, alphabet, recognize, spell
from polyvex_ocr.strips import Strip, cut_strips

LEAST_CONFIDENCE = 0.5
"""A word that is less sure, as the mean probability of its characters, counts as misread marks on the picture."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word, where it is on the picture in pixels (left, top, right, bottom), and how sure it is, from 0 to 1."""

    text: str
    box: tuple[float, float, float, float]
    confidence: float


def read_words(
    image: Image, *, side: int = DETECTOR_SIDE, min_confidence: float = LEAST_CONFIDENCE, weights: str = ""
) -> list[Word]:
    """Read the words of a picture of any mode, in reading order, with PP-OCRv4.

    Boxes are on the picture as it is when upright: an EXIF rotation is applied first. A word is what stands between
    spaces; Chinese and Japanese, which set none, give one word for each stretch of a line. Text that runs
    upwards or strongly askew is not read reliably.

    Args:
        side: a smaller picture is enlarged until its shorter side has so many pixels, before lines are looked for.
        min_confidence: words that are less sure are left out.
        weights: folder with the two ONNX files; empty for the rapidocr-onnxruntime wheel.

    Raises:
        WeightsError: if the files are missing or damaged.
    """
    upright = to_rgb(image)
    recognizer = session_of(RECOGNIZER, RECOGNIZER.find(weights))
    characters = alphabet(recognizer.get_modelmeta().custom_metadata_map["character"])
    strips = find_strips(upright, side=side, weights=weights)
    recognized = recognize(lambda pixels: run(recognizer, pixels), [strip.pixels for strip in strips])
    return [
        Word(text=word.text, box=place_of(word, strip.line, strip.width), confidence=word.confidence)
        for strip, one in zip(strips, recognized, strict=True)
        for word in spell(one.probabilities, characters, width=strip.width)
        if word.confidence >= min_confidence
    ]


def find_strips(image: Image, *, side: int, weights: str) -> list[Strip]:
    """Find the lines of an upright RGB picture and cut them out; see :func:`read_words`."""
    return cut_strips(image, find_lines(session_of(DETECTOR, DETECTOR.find(weights)), image, side=side))


def place_of(word: Spelled, line: Line, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a word on the picture, or in whatever units ``line`` is.

    Args:
        width: of the line's strip in pixels.
    """
    per_step = (line.right - line.left) * STEP / width
    return line.left + word.start * per_step, line.top, line.left + word.stop * per_step, line.bottom
