"""Name images by their content, and find those that cannot be read."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from polyvex.data.base import Sample
from polyvex.encoders.images import LIMITS, ImageLimits, size_of_file
from polyvex.errors import DataError
from polyvex.reading import open_regular

CHUNK = 2**20
"""Bytes of a file that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Image paths with the SHA-256 of their bytes, and the paths that cannot be read with the reason."""

    hashes: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def hash_images(paths: Iterable[str], limits: ImageLimits = LIMITS) -> ImageFiles:
    """Hash every file once. Whether it is an image shows when it is decoded, only its number of pixels is checked here:
    an image above ``limits`` is left out whether its tokens are cached or not.
    """
    files = ImageFiles()
    for path in dict.fromkeys(paths):
        try:
            files.hashes[path] = _hash(path, limits)
        except (DataError, OSError) as error:
            files.unreadable[path] = str(error)
    return files


def _hash(path: str, limits: ImageLimits) -> str:
    digest, left = hashlib.sha256(), limits.bytes
    with open_regular(path, what="image", limit=limits.bytes) as stream:
        while left >= 0 and (chunk := stream.read(CHUNK)):
            digest.update(chunk)
            left -= len(chunk)
    if left < 0:  # it grew meanwhile, or its size was not true
        raise DataError(f"cannot read the image {path}: more than {limits.bytes:,} bytes", code="file-too-large")
    try:
        size_of_file(path, limits)
    except DataError as error:
        if error.code == "image-too-large":
            raise
    return digest.hexdigest()


def image_paths(samples: Sequence[Sample]) -> list[str]:
    """All images of some samples, each once, in order."""
    return list(dict.fromkeys(path for sample in samples for path in sample.images))
