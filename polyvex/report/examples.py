"""Choose answers that show what a model gets wrong and right, and put their images into the page itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from polyvex.cache.images import hash_images
from polyvex.encoders.images import open_image
from polyvex.errors import DataError
from polyvex.evaluation.evaluate import Answered
from polyvex.reading import clip

SIDE = 160
"""Longest side of an image in the page, in pixels."""
IMAGES = 4
"""Images shown of one question at most."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An answer with its images as ``data:`` addresses, and a sentence for each image that could not be shown."""

    answered: Answered
    right: bool
    graded: bool = False
    images: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def choose(answers: Sequence[Answered], *, count: int = 12, right: int = 4, graded: bool = False) -> list[Example]:
    """At most ``count`` answers, wrong ones first: kinds take turns, and images are not shown twice if others are left.

    Args:
        right: places kept for right answers (score 1), if there are so many; wrong ones take what is free.
        graded: whether scores between 0 and 1 occur, so that an answer below 1 is not simply wrong.
    """
    wrong_ones = [answer for answer in answers if answer.score < 1]
    right_ones = [answer for answer in answers if answer.score >= 1]
    kept = min(right, len(right_ones))
    chosen = _take_turns(wrong_ones, count - kept)
    chosen += _take_turns(right_ones, count - len(chosen))
    return [_example(answer, graded=graded) for answer in chosen]


def _take_turns(answers: Sequence[Answered], count: int) -> list[Answered]:
    """``count`` answers, one kind after the other; within a kind, answers about new images come first."""
    by_kind: dict[str, list[Answered]] = {}
    for answer in answers:
        by_kind.setdefault(answer.kind, []).append(answer)
    chosen: list[Answered] = []
    seen: set[tuple[str, ...]] = set()
    while len(chosen) < count and any(by_kind.values()):
        for kind in sorted(by_kind):
            if by_kind[kind] and len(chosen) < count:
                fresh = next((answer for answer in by_kind[kind] if answer.images not in seen), by_kind[kind][0])
                by_kind[kind].remove(fresh)
                seen.add(fresh.images)
                chosen.append(fresh)
    return chosen


def _example(answer: Answered, *, graded: bool) -> Example:
    images, gone = [], []
    for number, path in enumerate(answer.images[:IMAGES]):
        try:
            images.append(inline(_opened(path, dict(enumerate(answer.image_sha256)).get(number, ""))))
        except DataError as error:
            gone.append(str(error))
    if len(answer.images) > IMAGES:
        gone.append(f"{len(answer.images) - IMAGES} more images are not shown")
    return Example(answered=answer, right=answer.score >= 1, graded=graded, images=images, gone=gone)


def _opened(path: str, sha256: str) -> Image.Image:
    """The image at ``path``, if it is the one that the question was about.

    A run from elsewhere may name any path. It cannot know the digest of a file that its author does not have, so no
    private picture gets into the page.
    """
    files = hash_images([path])
    if path in files.unreadable:
        raise DataError(files.unreadable[path])
    if files.hashes[path] != sha256:
        reason = "it has changed since the evaluation" if sha256 else "the evaluation has no checksum of it"
        raise DataError(f"{clip(path)}: {reason}", code="image-changed")
    return open_image(path)


def inline(image: Image.Image, *, side: int = SIDE, colors: int | None = None) -> str:
    """A small PNG of ``image`` as a ``data:`` address.

    Args:
        side: its longest side in pixels, at most.
        colors: how many colours it keeps; all by default.
    """
    small = image.copy()
    small.thumbnail((side, side))
    if colors is not None:
        small = small.convert("RGB").quantize(colors)
    stream = io.BytesIO()
    small.save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
