"""What every fusion has from the base: a count of what it trains, and errors for what it is not."""

import pytest
import torch

from polyvex.fusion import Fusion, FusionOptions, MLPFusion
from polyvex.fusion.mlp import MLPFusionOptions
from polyvex.tokens import Grid, TokenShape

INPUTS = (TokenShape(tokens=4, dim=3, grid=Grid(rows=2, cols=2)), TokenShape(tokens=4, dim=5))


def test_parameters_are_counted_without_building() -> None:
    # First layers 3·7 + 7 and 5·7 + 7, the shared second 7·7 + 7: 28 + 42 + 56.
    assert MLPFusion.count_parameters(MLPFusionOptions(), inputs=INPUTS, dim=7) == 126


def test_counting_leaves_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    MLPFusion.count_parameters(MLPFusionOptions(), inputs=INPUTS, dim=7)
    assert torch.equal(torch.rand(1), expected)


def test_counting_takes_no_memory() -> None:
    wide = TokenShape(tokens=1, dim=1_000_000)  # a first layer of 4 TB
    options = MLPFusionOptions(depth=1)
    assert MLPFusion.count_parameters(options, inputs=[wide], dim=1_000_000) == 10**12 + 10**6


def test_a_fusion_that_does_not_route_chooses_nothing() -> None:
    fusion = MLPFusion(MLPFusionOptions(), inputs=INPUTS, dim=7)
    assert not fusion.routes
    with pytest.raises(NotImplementedError, match="MLPFusion does not choose encoders"):
        fusion.choose(torch.zeros(1, 7))


def test_a_fusion_names_no_weights_unless_it_says_so() -> None:
    assert MLPFusion(MLPFusionOptions(), inputs=INPUTS, dim=7).load_pretrained() is None


def test_a_fusion_that_merges_must_write_its_forward() -> None:
    class Bare(Fusion):
        summary = "a test"

        @classmethod
        def describe(cls, options, *, inputs, dim):
            return list(inputs)

    with pytest.raises(NotImplementedError, match="needs a forward of its own"):
        Bare(FusionOptions(), inputs=INPUTS, dim=7)([])
