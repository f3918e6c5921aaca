"""Proof that an encoder is what it says: the library that its weights come from gives the same tokens."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from polyvex.encoders import VisionEncoder
from polyvex.encoders.inputs import run_encoder, stack_inputs
from polyvex.testing.probes import expect

Upstream = Callable[[list[Image]], Float[Tensor, "images tokens dim"]]
"""The library's own pipeline from images to tokens: row by row, without class and register tokens."""


def check_upstream(
    encoder: VisionEncoder, images: Sequence[Image], upstream: Upstream, tolerance: float = 1e-5
) -> None:
    """Hold an encoder's transform and tokens against the pipeline of the library that its weights come from.

    Args:
        encoder: with the same weights as ``upstream``; it is put into eval mode.
        images: of several sizes and shapes, since resizing is where pipelines differ most often.
        upstream: gets copies of the images.
        tolerance: largest difference of a value, as a share of upstream's largest value.

    Raises:
        AssertionError: names the image that differs, by how much, and where.
    """
    expect(bool(images), "check_upstream got no images; give some of several sizes")
    name = type(encoder).__name__
    with torch.no_grad():
        wanted = upstream([image.copy() for image in images])
        views = [encoder.transform(image.copy()) for image in images]
        given = run_encoder(encoder.eval(), stack_inputs(views)).values
    expect(
        given.shape == wanted.shape,
        f"{name} gives tokens of shape {tuple(given.shape)}; upstream gives {tuple(wanted.shape)}",
    )
    expect(bool(wanted.isfinite().all()), f"upstream gives values that are not finite for {name}'s images")
    allowed = tolerance * wanted.abs().max().item()
    for index, (mine, theirs) in enumerate(zip(given, wanted, strict=True)):
        difference = (mine - theirs.to(mine)).abs()
        token, channel = divmod(int(difference.argmax()), difference.shape[-1])
        expect(
            difference.max().item() <= allowed,
            f"{name}: image #{index + 1} of {images[index].width} × {images[index].height} differs from upstream by "
            f"{difference.max().item():.3g} (allowed {allowed:.3g}) at token {token}, channel {channel}. "
            "Compare what the two transforms give first",
        )
