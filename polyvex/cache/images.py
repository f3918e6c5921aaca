"""Name images by their content, and find those that cannot be read."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polyvex.data.base import Sample


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Image paths with the SHA-256 of their bytes, and the paths that cannot be read with the reason."""

    hashes: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def hash_images(paths: Iterable[str]) -> ImageFiles:
    """Read every file once and hash it. Whether it is an image shows when it is decoded."""
    files = ImageFiles()
    for path in dict.fromkeys(paths):
        try:
            files.hashes[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            files.unreadable[path] = f"{type(error).__name__}: {error.strerror}"
    return files


def image_paths(samples: Sequence[Sample]) -> list[str]:
    """All images of some samples, each once, in order."""
    return list(dict.fromkeys(path for sample in samples for path in sample.images))
