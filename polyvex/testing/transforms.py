"""Checks of an encoder's image transform: it must take whatever people's folders hold."""

import numpy as np
import torch
from PIL import Image

from polyvex.encoders import EncoderFacts, VisionEncoder
from polyvex.encoders.inputs import map_inputs, pixels_of, run_encoder, stack_inputs
from polyvex.testing.pictures import odd_images, plain, twins
from polyvex.testing.probes import expect

FLAT_COLORS = ("black", "gray", "white", "red")


def check_transform(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Any image becomes finite float32 pixels of the promised size, which the encoder takes. The image is kept."""
    name = type(encoder).__name__
    wanted = (3, *facts.image_size)
    shapes: set[str] = set()
    for kind, image in odd_images().items():
        kept = image.tobytes()
        try:
            given = encoder.transform(image)
        except Exception as error:
            raise AssertionError(f"{name}.transform fails on an image of kind '{kind}': {error}") from error
        expect(
            not isinstance(given, dict) or "pixels" in given,
            f"{name}.transform gives tensors by name without 'pixels', which it needs",
        )
        pixels = pixels_of(given)
        shapes.add(str(map_inputs(given, lambda value: torch.tensor(value.shape))))
        expect(
            tuple(pixels.shape) == wanted,
            f"{name}.transform gives pixels of shape {tuple(pixels.shape)} for an image of kind '{kind}'; "
            f"describe promises {wanted}",
        )
        expect(
            pixels.dtype == torch.float32,
            f"{name}.transform gives {pixels.dtype} for an image of kind '{kind}'; expected torch.float32",
        )
        expect(bool(pixels.isfinite().all()), f"{name}.transform gives values that are not finite for '{kind}'")
        expect(image.tobytes() == kept, f"{name}.transform changes the image that it is given; copy it first")
    expect(
        len(shapes) == 1, f"{name}.transform gives tensors whose names or shapes differ from image to image: {shapes}"
    )
    batch = stack_inputs([encoder.transform(odd_images()["RGB"])])
    with torch.no_grad():
        tokens = run_encoder(encoder, batch)
    expect(bool(tokens.values.isfinite().all()), f"{name} returned values that are not finite for a transformed image")


def check_flat_images(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Images of one color, which every data set has, become finite pixels and finite tokens."""
    name = type(encoder).__name__
    for color in FLAT_COLORS:
        inputs = encoder.transform(plain(color, 40, 30))
        expect(
            bool(pixels_of(inputs).isfinite().all()),
            f"{name}.transform gives NaN or Inf for an image that is {color} everywhere. Does it divide by the image's "
            "own deviation? Use a fixed mean and deviation",
        )
        with torch.no_grad():
            values = run_encoder(encoder, stack_inputs([inputs])).values
        expect(
            bool(values.isfinite().all()),
            f"{name} gives NaN or Inf for an image that is {color} everywhere. Does it divide by a deviation or a norm "
            "that can be zero? Add a small number to it",
        )


def check_transform_is_upright(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """The transform keeps what is at the top, and what is at the left, in its place."""
    name = type(encoder).__name__
    rows, cols = np.mgrid[0:64, 0:64]
    for side, lit in {"top": rows < 32, "left": cols < 32}.items():
        image = Image.fromarray(np.repeat((lit * 255).astype(np.uint8)[..., None], 3, axis=2))
        pixels = pixels_of(encoder.transform(image)).mean(dim=0)
        height, width = pixels.shape
        first, last = (
            (pixels[: height // 2], pixels[height - height // 2 :])
            if side == "top"
            else (pixels[:, : width // 2], pixels[:, width - width // 2 :])
        )
        expect(
            bool(first.mean() > last.mean()),
            f"{name}.transform does not leave the bright {side} half of an image at the {side}; "
            "are height and width exchanged, or is it flipped?",
        )


def check_stored_otherwise(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """A picture gives the same pixels however it is stored: in 16 bits, as CMYK, in an animation, turned by EXIF."""
    name = type(encoder).__name__
    black, white = (pixels_of(encoder.transform(plain(color, 37, 53))) for color in ("black", "white"))
    allowed = 0.01 * (white - black).abs().max().item()  # 16 bits are not the same as 8, but nearly
    for kind, (image, upright) in twins().items():
        given, wanted = (pixels_of(encoder.transform(one)) for one in (image, upright))
        difference = (given - wanted).abs().max().item()
        expect(
            difference <= allowed,
            f"{name}.transform takes an image of kind '{kind}' for another picture than the same one as RGB "
            f"(largest difference {difference:.3g}, allowed {allowed:.3g}); polyvex.encoders.images.to_rgb knows all",
        )
