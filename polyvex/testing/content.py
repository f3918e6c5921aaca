"""Checks of which pixels show the image: all that do are told, none that does not is, and nothing is cut off."""

from jaxtyping import Bool
from torch import Tensor

from polyvex.encoders import Box, EncoderFacts, VisionEncoder
from polyvex.encoders.inputs import pixels_of
from polyvex.testing.pictures import plain
from polyvex.testing.probes import expect

SIZES = ((48, 64), (64, 48), (1, 1), (3, 500), (500, 3), (20, 20000))
"""Heights and widths of the images, beside the encoder's own size."""


def check_content(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """``content`` gives the box of pixels that show the image: those that differ between a black and a white one.

    With an option ``padding = "keep"`` it is the whole picture: then people asked for the tokens of padding, too.
    """
    name = type(encoder).__name__
    for height, width in (*SIZES, facts.image_size):
        where = f"{name}.content for an image of {height} × {width}"
        box = type(encoder).content(encoder.options, (height, width))
        _check_box(where, box, facts.image_size)
        shows = _shows(encoder, height, width)
        rows = slice(box.top, box.top + box.height)
        cols = slice(box.left, box.left + box.width)
        inside = shows[rows, cols]
        kept = getattr(encoder.options, "padding", "") == "keep" and _is_whole(box, facts.image_size)
        expect(
            kept or bool(inside.all()),
            f"{where} says {box}, but {int((~inside).sum())} pixels in it are the same for a black and a white image; "
            "leave padding out of the box",
        )
        outside = int(shows.sum() - inside.sum())
        expect(
            outside == 0,
            f"{where} says {box}, but {outside} pixels beside it depend on the image; "
            "their tokens would be lost, so the box must hold all that shows the image",
        )


def _check_box(where: str, box: Box, image_size: tuple[int, int]) -> None:
    expect(isinstance(box, Box), f"{where} returned {type(box).__name__}; expected Box")
    height, width = image_size
    numbers = (box.top, box.left, box.height, box.width)
    expect(all(isinstance(number, int) for number in numbers), f"{where} says {box}; expected whole numbers")
    expect(box.height >= 1 and box.width >= 1, f"{where} says {box}; expected at least one pixel")
    expect(
        min(box.top, box.left) >= 0 and box.top + box.height <= height and box.left + box.width <= width,
        f"{where} says {box}, which leaves the {height} × {width} pixels that describe promises",
    )


def _shows(encoder: VisionEncoder, height: int, width: int) -> Bool[Tensor, "height width"]:
    """Where the pixels of a black and of a white image differ."""
    black, white = (pixels_of(encoder.transform(plain(color, height, width))) for color in ("black", "white"))
    shows = (white - black).abs().amax(dim=0) > 1e-3
    expect(
        bool(shows.any()),
        f"{type(encoder).__name__}.transform gives the same pixels for black and for white; "
        "subtract the mean that the network was trained with, not that of each image",
    )
    return shows


def check_border(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """An image of the encoder's own size keeps its outermost pixels, unless ``crops`` says that they are cut off.

    Tiles of a large image are given at that size; what a transform cut off would be seen by nobody.
    """
    if facts.crops:
        return
    height, width = facts.image_size
    black = plain("black", height, width)
    sides = {
        "top": (0, 0, width, 1),
        "bottom": (0, height - 1, width, height),
        "left": (0, 0, 1, height),
        "right": (width - 1, 0, width, height),
    }
    before = pixels_of(encoder.transform(black))
    span = (pixels_of(encoder.transform(plain("white", height, width))) - before).abs().max().item()
    for side, line in sides.items():
        changed = black.copy()
        changed.paste("white", line)
        difference = (pixels_of(encoder.transform(changed)) - before).abs().max().item()
        expect(
            difference > 0.05 * span,
            f"{type(encoder).__name__}.transform cuts the {side} border off an image of its own size; "
            "keep all of the image, or say crops=True in describe",
        )


def _is_whole(box: Box, picture: tuple[int, int]) -> bool:
    return (box.top, box.left, box.height, box.width) == (0, 0, *picture)
