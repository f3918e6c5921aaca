"""Find the lines of text on a picture: the detector's map of probabilities, and boxes around what stands out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

from polyvex_ocr.graph import run

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

THRESHOLD = 0.3
"""A pixel is text above this probability."""

BOX_THRESHOLD = 0.5
"""A region is a line if the mean probability of its pixels is above this."""

UNCLIP = 1.6
"""How far a box is grown: the network learns lines that are shrunk."""

LEAST_SIDE = 3
"""A region that is narrower, in pixels of the map, is no text."""

DETECTOR_SIDE = 736
"""The shorter side of a picture is enlarged to this, in pixels."""

LONGEST_SIDE = 2016
"""No picture is given to the detector with a longer side, in pixels."""

STRIDE = 32
"""The detector takes sides that are multiples of this."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """An upright rectangle on a picture, in pixels from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


def find_lines(session: "InferenceSession", image: Image.Image, *, side: int = DETECTOR_SIDE) -> list[Line]:
    """Find the lines of text of an RGB picture, in reading order.

    Args:
        session: of the detector, read at its end.
        side: the picture is enlarged until its shorter side has this length, unless its longer one then had more
            than 2016 pixels; to that a larger picture is reduced.
    """
    height, width = detector_size(image.height, image.width, side=side)
    (probabilities,) = run(session, detector_pixels(image.resize((width, height), Image.Resampling.BILINEAR))[None])
    boxes = text_boxes(probabilities[0, 0])
    scale = np.array([image.width / width, image.height / height] * 2)
    limits = np.array([image.width, image.height] * 2)
    placed = np.clip(boxes * scale, 0, limits)
    whole = [
        Line(left=left, top=top, right=right, bottom=bottom)
        for left, top, right, bottom in placed.tolist()
        if right - left >= 1 and bottom - top >= 1
    ]
    return in_reading_order(whole)


def detector_size(height: int, width: int, *, side: int = DETECTOR_SIDE) -> tuple[int, int]:
    """Height and width at which the detector looks at a picture of ``height`` and ``width``: multiples of 32."""
    scale = min(max(1.0, side / min(height, width)), LONGEST_SIDE / max(height, width))
    tall, wide = (max(STRIDE, round(length * scale / STRIDE) * STRIDE) for length in (height, width))
    return tall, wide


def detector_pixels(image: Image.Image) -> Float[np.ndarray, "3 height width"]:
    """Blue, green and red from -1 to 1, which is the order and the scale of PP-OCR's two networks."""
    values = np.asarray(image, dtype=np.float32)[..., ::-1] / 127.5 - 1.0
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def text_boxes(probabilities: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "boxes 4"]:
    """Left, top, right and bottom of each line on the map, in its pixels.

    As in "Real-time Scene Text Detection with Differentiable Binarization" (arXiv:1911.08947): regions above a
    threshold, each grown by area × ratio / perimeter (equation 10), here of its upright rectangle. Lines that run
    askew get the upright rectangle around them.
    """
    from scipy import ndimage

    is_text = probabilities > THRESHOLD
    regions, count = ndimage.label(is_text, structure=np.ones((3, 3)))  # type: ignore[misc]
    means = ndimage.mean(probabilities, regions, np.arange(1, count + 1)) if count else []
    boxes = []
    for found, mean in zip(ndimage.find_objects(regions), means, strict=True):
        rows, cols = found
        tall, wide = rows.stop - rows.start, cols.stop - cols.start
        if mean < BOX_THRESHOLD or min(tall, wide) < LEAST_SIDE:
            continue
        grown = tall * wide * UNCLIP / (2 * (tall + wide))
        boxes.append((cols.start - grown, rows.start - grown, cols.stop + grown, rows.stop + grown))
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def in_reading_order(lines: list[Line]) -> list[Line]:
    """Rows from top to bottom, each from left to right. Lines are of one row if the middle of one is beside the first.

    Columns are not told apart: a page of two columns is read across both.
    """
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.top + line.bottom):
        middle = (line.top + line.bottom) / 2
        if rows and middle < rows[-1][0].bottom:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.left)]
