"""Tokens are kept only if they are numbers: the loss of training would be none either, and tell nobody from what."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyvex.cache.place import Place
from polyvex.errors import WeightsError


def kept_tokens(values: Tensor, dtype: torch.dtype, place: Place, images: Mapping[str, str], image: str) -> Tensor:
    """An image's tokens as they go to the disk.

    Args:
        images: the hash of each path.
        image: the hash of the image.

    Raises:
        WeightsError: if a value is NaN or infinite, in the encoder's precision or in ``dtype``.
    """
    kept = values.to("cpu", dtype)
    if kept.isfinite().all():
        return kept
    path = next(path for path, known in images.items() if known == image)
    told = f"encoder {place.encoder} gives tokens of {path} that are not finite"
    if values.isfinite().all():
        largest = float(values.abs().max())
        raise WeightsError(f"{told} as cache.dtype = '{str(dtype)[6:]}': up to {largest:.3g}. Take another cache.dtype")
    half = f", or leave precision = '{place.precision}' out" if place.precision != "float32" else ""
    raise WeightsError(f"{told} (NaN or infinite). Are its weights damaged? Fetch them again{half}")
