"""Checks of a data set: samples that can be counted, told apart, repeated, and whose images open."""

from collections.abc import Sequence

from polyvex.data import check
from polyvex.data.base import Dataset, Sample
from polyvex.encoders.images import open_image
from polyvex.errors import DataError, PolyvexError
from polyvex.testing.probes import expect

OPENED = 16
"""How many samples of a split have their images opened."""


def check_splits(dataset: Dataset) -> list[str]:
    """There is at least one split, names are not repeated, and an unknown one is a DataError. Returns the names."""
    name = type(dataset).__name__
    splits = dataset.splits()
    expect(isinstance(splits, list) and bool(splits), f"{name}.splits() is {splits!r}; expected a list of names")
    expect(len(set(splits)) == len(splits), f"{name}.splits() repeats a name: {splits}")
    try:
        dataset.samples("no such split")
    except DataError:
        return splits
    except Exception as error:
        raise AssertionError(f"{name}: an unknown split raises {type(error).__name__}; expected DataError") from error
    raise AssertionError(f"{name}: an unknown split gives samples; expected DataError")


def check_samples(dataset: Dataset, split: str) -> Sequence[Sample]:
    """A split is a sequence of complete samples with ids of their own. Returns them."""
    where = f"{type(dataset).__name__}, split {split}"
    samples = dataset.samples(split)
    expect(isinstance(samples, Sequence), f"{where}: samples are {type(samples).__name__}; expected a sequence")
    expect(len(samples) > 0, f"{where}: no samples")
    try:
        check.check_samples(samples, where=where)
    except DataError as error:
        raise AssertionError(str(error)) from None
    return samples


def check_same_order(dataset: Dataset, again: Dataset, split: str) -> None:
    """Two instances, and one instance twice, give the same samples in the same order."""
    first = list(dataset.samples(split))
    for other in (dataset, again):
        expect(
            list(other.samples(split)) == first,
            f"{type(dataset).__name__}, split {split}: the samples or their order differ from one call to the next",
        )


def check_images(dataset: Dataset, split: str) -> None:
    """Images of samples spread over the split are there and can be opened."""
    samples = dataset.samples(split)
    count = min(OPENED, len(samples))
    for place in range(count):
        sample = samples[place * (len(samples) - 1) // max(1, count - 1)]
        for path in sample.images:
            try:
                open_image(path)
            except PolyvexError as error:
                raise AssertionError(
                    f"{type(dataset).__name__}, split {split}: sample {sample.id!r} has an unusable image: {error}"
                ) from error
