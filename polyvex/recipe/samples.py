"""The samples that a recipe names, and the texts that a tokenizer is trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from polyvex.data.base import Dataset, Sample
from polyvex.data.check import check_samples
from polyvex.encoders.images import ImageLimits
from polyvex.errors import DataError
from polyvex.hooks.manager import Registries
from polyvex.recipe.schema import CHAT, Recipe
from polyvex.storage import below


def open_dataset(recipe: Recipe, registries: Registries) -> Dataset:
    """The recipe's data set."""
    return registries.datasets[recipe.data.use](recipe.data)


def image_limits(recipe: Recipe) -> ImageLimits:
    """The largest image that the recipe reads."""
    return ImageLimits(bytes=recipe.data.max_image_bytes, pixels=recipe.data.max_image_pixels)


def read_split(recipe: Recipe, registries: Registries, split: str) -> Sequence[Sample]:
    """The samples of a split; of the training split, only as many as ``data.train_limit`` says.

    Raises:
        UnsafeNameError: if ``split`` cannot be the name of a file.
        DataError: if the data set has no such split, it is empty, or a sample is not what
            :func:`~polyvex.data.check.check_samples` expects.
    """
    below(Path(), split, links=True)  # data sets open files of this name, and evaluations are named after it
    samples = open_dataset(recipe, registries).samples(split)
    if not samples:
        raise DataError(f"the split '{split}' of {recipe.data.use} has no samples; fill it, or name another split")
    check_samples(samples, where=f"the split '{split}' of {recipe.data.use}")
    limit = recipe.data.train_limit if split == recipe.data.train_split else 0
    return samples[:limit] if limit else samples


def image_problems(recipe: Recipe, train: Sequence[Sample]) -> list[str]:
    """A sentence if stages train with images, and no training sample has one."""
    stages = [stage.name for stage in recipe.stages if stage.images]
    if not stages or any(sample.images for sample in train):
        return []
    return [
        f"none of the {len(train):,} training samples has an image, but the stages {', '.join(stages)} train with "
        f"images. Give the data images, or set images = false in these stages"
    ]


def image_notes(**splits: Sequence[Sample]) -> list[str]:
    """A line for each split, by its name, in which some samples have no image."""
    counts = {name: sum(not sample.images for sample in samples) for name, samples in splits.items()}
    return [
        f"NO IMAGE: {count:,} of {len(splits[name]):,} {name} samples are text alone"
        for name, count in counts.items()
        if count
    ]


def training_texts(recipe: Recipe, registries: Registries) -> Iterator[str]:
    """The prompts and answers of the training split, without images."""
    template = "{question}" if recipe.prompt.template == CHAT else recipe.prompt.template.replace("{image}", "")
    for sample in read_split(recipe, registries, recipe.data.train_split):
        yield template.replace("{question}", sample.question) + sample.answer
