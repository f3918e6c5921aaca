"""The conformance kit: hold a component to its contract, check after check."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import torch

from polyvex.data.base import Dataset, DatasetOptions
from polyvex.encoders import EncoderFacts, EncoderOptions, VisionEncoder
from polyvex.testing.brightness import check_brightness
from polyvex.testing.checks import Check, run_all
from polyvex.testing.content import check_border, check_content
from polyvex.testing.datasets import check_images, check_same_order, check_samples, check_splits
from polyvex.testing.declarations import (
    check_bad_options,
    check_declaration,
    check_flops,
    check_meta,
    check_options_class,
    check_parameters,
)
from polyvex.testing.devices import check_device
from polyvex.testing.network import no_network
from polyvex.testing.order import check_row_major
from polyvex.testing.outputs import (
    check_batch_independence,
    check_dtype,
    check_gradients,
    check_inputs_kept,
    check_same_twice,
    check_state_dict,
    check_tokens,
)
from polyvex.testing.pretrained import check_load_pretrained
from polyvex.testing.transforms import (
    check_flat_images,
    check_stored_otherwise,
    check_transform,
    check_transform_is_upright,
)


class EncoderKit:
    """All checks of an encoder at given options. It is built once, when the first check needs it."""

    def __init__(self, encoder_class: type[VisionEncoder], options: EncoderOptions, *, pretrained: bool = False):
        self.encoder_class = encoder_class
        self.options = options
        self.pretrained = pretrained

    @cached_property
    def facts(self) -> EncoderFacts:
        """What the encoder says of itself."""
        return self.encoder_class.describe(self.options)

    @cached_property
    def encoder(self) -> VisionEncoder:
        """The encoder in eval mode; its fresh weights are the same in each run, so that a check is not a lottery."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.encoder_class(self.options).eval()

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next is asked for. None of them reaches the network."""
        kind, options = self.encoder_class, self.options
        yield self._check("declaration", lambda: check_declaration(kind, options))
        yield self._check("other options", lambda: check_bad_options(kind, options))
        yield self._check("number of parameters", lambda: check_parameters(self.encoder, self.facts))
        yield self._check("structure without memory", lambda: check_meta(kind, options, self.encoder))
        if self.pretrained or not kind.weights(options).needed:
            yield self._check("weights", lambda: check_load_pretrained(kind, options, self.encoder))
        for name, check in {
            "shape of tokens": check_tokens,
            "inputs stay as they are": check_inputs_kept,
            "same tokens twice": check_same_twice,
            "images do not mix": check_batch_independence,
            "tokens row by row": check_row_major,
            "type of numbers": check_dtype,
            "device": check_device,
            "gradients": check_gradients,
            "state dict": partial(check_state_dict, kind, options),
            "cost": check_flops,
            "images of all kinds": check_transform,
            "flat images": check_flat_images,
            "upright": check_transform_is_upright,
            "images stored otherwise": check_stored_otherwise,
            "which pixels show the image": check_content,
            "mean and deviation": check_brightness,
            "border": check_border,
        }.items():
            yield self._check(name, lambda check=check: check(self.encoder, self.facts))

    def _check(self, name: str, run: Callable[[], object]) -> Check:
        def offline() -> None:
            with no_network(self.encoder_class.__name__):
                run()

        return Check(name=name, run=offline)


class DatasetKit:
    """All checks of a data set at given options."""

    def __init__(self, dataset_class: type[Dataset], options: DatasetOptions):
        self.dataset_class = dataset_class
        self.options = options

    @cached_property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.dataset_class(self.options)

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next one is asked for."""
        kind, options = self.dataset_class, self.options
        yield Check(name="declaration", run=lambda: check_options_class(kind, options, DatasetOptions))
        yield Check(name="splits", run=lambda: check_splits(self.dataset))
        for split in self.dataset.splits():
            yield Check(name=f"samples of {split}", run=lambda split=split: check_samples(self.dataset, split))
            yield Check(
                name=f"order of {split}",
                run=lambda split=split: check_same_order(self.dataset, kind(options), split),
            )
            yield Check(name=f"images of {split}", run=lambda split=split: check_images(self.dataset, split))


def check_encoder(
    encoder_class: type[VisionEncoder], options: EncoderOptions, *, pretrained: bool = False
) -> VisionEncoder:
    """Hold an encoder to its contract. Small image sizes keep this quick: a grid of 4 × 4 is enough.

    Args:
        pretrained: also load the real weights, check that all of them arrive, and run the other checks with them.
            An encoder that needs no weights is always checked for this.

    Returns:
        The encoder that was checked, in eval mode, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = EncoderKit(encoder_class, options, pretrained=pretrained)
    run_all(kit)
    return kit.encoder


def check_dataset(dataset_class: type[Dataset], options: DatasetOptions) -> Dataset:
    """Hold a data set to its contract.

    Returns:
        The data set that was checked, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = DatasetKit(dataset_class, options)
    run_all(kit)
    return kit.dataset
