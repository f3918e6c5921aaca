"""The conformance kit: hold a component to its contract, check after check."""

import torch

from polyvex.data.base import Dataset, DatasetOptions
from polyvex.encoders import EncoderOptions, VisionEncoder
from polyvex.testing.datasets import check_images, check_same_order, check_samples, check_splits
from polyvex.testing.declarations import (
    check_declaration,
    check_flops,
    check_meta,
    check_options_class,
    check_parameters,
)
from polyvex.testing.order import check_row_major
from polyvex.testing.outputs import (
    check_batch_independence,
    check_dtype,
    check_gradients,
    check_same_twice,
    check_state_dict,
    check_tokens,
)
from polyvex.testing.pretrained import check_load_pretrained
from polyvex.testing.transforms import check_transform, check_transform_is_upright


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
    facts = check_declaration(encoder_class, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # fresh weights are random: the same ones in each run, so that a check is not a lottery
        encoder = encoder_class(options).eval()
    check_parameters(encoder, facts)
    check_meta(encoder_class, options, encoder)
    if pretrained or not encoder_class.weights(options).needed:
        check_load_pretrained(encoder_class, options, encoder)
    check_tokens(encoder, facts)
    check_same_twice(encoder, facts)
    check_batch_independence(encoder, facts)
    check_row_major(encoder, facts)
    check_dtype(encoder, facts)
    check_gradients(encoder, facts)
    check_state_dict(encoder_class, options, encoder, facts)
    check_flops(encoder, facts)
    check_transform(encoder, facts)
    check_transform_is_upright(encoder, facts)
    return encoder


def check_dataset(dataset_class: type[Dataset], options: DatasetOptions) -> Dataset:
    """Hold a data set to its contract.

    Returns:
        The data set that was checked, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    check_options_class(dataset_class, options, DatasetOptions)
    dataset, again = dataset_class(options), dataset_class(options)
    for split in check_splits(dataset):
        check_samples(dataset, split)
        check_same_order(dataset, again, split)
        check_images(dataset, split)
    return dataset
