"""Mutated pictures and special files: each is refused by name, or decoded as Pillow decodes it, at its full size."""

import io
import os
import random
import socket
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from polyvex.encoders.images import LIMITS, open_image

from .command import call
from .mutate import mutate_bytes

warnings.simplefilter("ignore", Image.DecompressionBombWarning)

SIDE = 40


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the fault (empty if there is none): the special files first, then mutants of real ones."""
    generator = random.Random(seed)
    special = SPECIAL[:count]
    for make in special:
        path = folder / make.__name__
        make(path)
        yield make.__name__, _refusal(path)
    plain = _pictures(generator)
    for number in range(count - len(special)):
        kind = generator.choice(list(plain))
        name, content = mutate_bytes(plain[kind], generator)
        path = folder / f"{number}.{kind}"
        path.write_bytes(content)
        yield f"{kind}: {name}", _fault(path)
        path.unlink()


def _pictures(generator: random.Random) -> dict[str, bytes]:
    """Encoded pictures by format."""
    noise = np.random.default_rng(generator.randrange(2**32))
    values = noise.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    found = {}
    for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"):
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, kind)
        found[kind] = stream.getvalue()
    stream = io.BytesIO()
    Image.fromarray(noise.random((SIDE, SIDE), dtype=np.float32)).save(stream, "tiff")
    return {**found, "float.tiff": stream.getvalue()}


def _refusal(path: Path) -> str:
    """The fault where a file must be refused."""
    _, ended = call(lambda: open_image(path))
    if ended.fault:
        return f"{ended.fault}: {ended.error[-300:]}"
    if not ended.refused:
        return "silent: accepted"
    return "" if path.name in ended.error else f"the message does not name the file: {ended.error[:200]}"


def _fault(path: Path) -> str:
    image, ended = call(lambda: open_image(path))
    if ended.fault:
        return f"{ended.fault}: {ended.error[-300:]}"
    if image is None:
        return "" if path.name in ended.error else f"the message does not name the file: {ended.error[:200]}"
    return _difference(image, path)


def _difference(image: Image.Image, path: Path) -> str:
    """How an accepted picture differs from what Pillow reads, where both must be equal."""
    try:
        with Image.open(path) as reference:
            size, mode = reference.size, reference.mode
            turned = reference.getexif().get(ExifTags.Base.Orientation, 1) != 1
            reference.load()
            expected = np.asarray(reference.convert("RGB"))
    except Exception as error:
        return f"silent: accepted, although Pillow refuses it ({error})"
    if image.mode != "RGB" or sorted(image.size) != sorted(size) or image.width * image.height > LIMITS.pixels:
        return f"silent: {size} {mode} became {image.size} {image.mode}"
    exact = mode in ("RGB", "L") and not turned and "transparency" not in reference.info
    return "silent: other pixels than Pillow's" if exact and not np.array_equal(np.asarray(image), expected) else ""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2**40)


def text(path: Path) -> None:
    path.write_text("not a picture")


def page(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")


def bomb(path: Path) -> None:
    """A small PNG whose pixels would take gigabytes."""
    side = 40_000
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    pixels = zlib.compress(b"\0" * 1_000_000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


SPECIAL: tuple[Callable[[Path], None], ...] = (
    fifo,
    folder,
    endless,
    link_to_itself,
    link_to_nothing,
    unix_socket,
    empty,
    sparse,
    text,
    page,
    bomb,
)
"""Files that no picture can be read from."""
