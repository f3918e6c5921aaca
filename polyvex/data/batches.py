"""From samples to batches: ids, labels, and what the model needs of their images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from polyvex.data.base import Sample
from polyvex.data.prompt import IGNORED, CountTokens, PromptEncoder
from polyvex.errors import DataError
from polyvex.tokens import TEXT

ReadImages = Callable[[Sequence[str]], dict[str, Any]]
"""From paths to a batch's entries for these images: ``encoder_tokens``, and whatever else the model needs of them."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sample as ids and labels, with the paths of its images."""

    ids: list[int]
    labels: list[int]
    images: tuple[str, ...]


class ExampleDataset(TorchDataset[Example]):
    """Samples as examples for training; ``images`` false leaves the images out of prompt and example alike.

    Args:
        count: how many visual tokens images take, where that depends on the image.

    Raises:
        DataError: if an example is longer than ``context`` tokens. It is not cut: that would lose its answer.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        prompts: PromptEncoder,
        *,
        images: bool,
        context: int | None,
        count: CountTokens = len,
    ):
        self.samples = samples
        self.count = count
        self.prompts = prompts
        self.images = images
        self.context = context

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Example:
        sample = self.samples[index]
        pictures = sample.images if self.images else ()
        ids, labels = self.prompts.example(sample.question, sample.answer, images=self.count(pictures))
        if self.context is not None and len(ids) > self.context:
            raise DataError(
                f"sample {sample.id} has {len(ids)} tokens, the language model's context holds {self.context}. "
                f"Leave it out, use fewer visual tokens, or a model with a longer context"
            )
        return Example(ids=ids, labels=labels, images=pictures)


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Pads examples on the right and reads their images. Works on ``multiple``s, for aligned kernels.

    With ``pack``, short examples share rows as long as the longest one, so that less is padding. Nothing else changes:
    the model keeps them apart (``documents``), and each counts as it would in a row of its own.
    """

    pad: int
    read_images: ReadImages
    multiple: int = 8
    pack: bool = False

    def __call__(self, examples: list[Example]) -> dict[str, Any]:
        """A batch: ``input_ids``, ``attention_mask``, ``labels`` [batch seq], and what images need if there are any.

        With ``pack`` also ``documents``, the number of the example within its row.
        """
        longest = max(len(example.ids) for example in examples)
        rows = packed(examples, longest) if self.pack else [[example] for example in examples]
        longest += -longest % self.multiple
        batch: dict[str, Any] = {
            "input_ids": _padded([[one for example in row for one in example.ids] for row in rows], longest, self.pad),
            "attention_mask": _padded([[1] * sum(len(example.ids) for example in row) for row in rows], longest, 0),
            "labels": _padded([_labels(row) for row in rows], longest, IGNORED),
        }
        if self.pack:
            numbers = [[n for n, example in enumerate(row) for _ in example.ids] for row in rows]
            batch["documents"] = _padded(numbers, longest, TEXT)
        paths = [path for row in rows for example in row for path in example.images]
        if paths:
            batch.update(self.read_images(paths))
        return batch


def packed(examples: Sequence[Example], length: int) -> list[list[Example]]:
    """Examples in as few rows of ``length`` tokens as going from the longest to the shortest gives (first fit)."""
    rows: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda one: len(one.ids), reverse=True):
        fits = next((row for row, left in enumerate(room) if left >= len(example.ids)), None)
        if fits is None:
            rows.append([])
            room.append(length)
            fits = len(rows) - 1
        rows[fits].append(example)
        room[fits] -= len(example.ids)
    return rows


def _labels(row: Sequence[Example]) -> list[int]:
    """Labels of a row; an example's first token is never the answer to the one before it."""
    return [label for example in row for label in [IGNORED, *example.labels[1:]]]


def _padded(rows: list[list[int]], length: int, fill: int) -> Tensor:
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors, and those one level deeper, on ``device``."""
    return {
        key: to_device(value, device) if isinstance(value, dict) else value.to(device) for key, value in batch.items()
    }


def pad_left(rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    """Ids and mask, [batch seq], padded on the left as generation needs it."""
    longest = max(map(len, rows), default=0)
    ids = [[pad] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
