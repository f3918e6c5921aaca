"""Forwards over samples with their answers, for what is measured inside a trained model."""

from collections.abc import Iterator, Sequence
from typing import Any

from polyvex.cache.reader import ImageReader
from polyvex.data.base import Sample
from polyvex.data.batches import Collator, ExampleDataset, to_device


def batches(
    model: Any, processor: Any, samples: Sequence[Sample], reader: ImageReader, *, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Batches of ``samples`` on the model's device: questions, answers, and labels.

    Labels tell a fusion that chooses encoders by the question where it ends.
    """
    context = model.context_length
    dataset = ExampleDataset(samples, processor.prompts, images=True, context=context, count=reader.count)
    collate = Collator(pad=processor.tokenizer.pad_token_id, read_images=reader)
    for start in range(0, len(samples), batch_size):
        batch = collate([dataset[index] for index in range(start, min(start + batch_size, len(samples)))])
        yield to_device(batch, model.device)
