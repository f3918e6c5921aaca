"""What holds for each fusion of the core; what is particular to one is tested in a file of its own."""

import pytest
import torch

from polyvex.fusion import Fusion, register_fusions
from polyvex.testing import check_fusion
from polyvex.testing.fusions import INPUTS
from polyvex.tokens import Grid, TokenShape, VisualTokens

FUSIONS = register_fusions()
SIZED = [(name, what) for name, kind in FUSIONS.items() for what in kind.sizes]


@pytest.mark.parametrize("name", FUSIONS)
def test_it_passes_the_kit(name: str) -> None:
    kind = FUSIONS[name]
    assert not check_fusion(kind, kind.Options.example()).training


@pytest.mark.parametrize("name", FUSIONS)
def test_it_takes_one_encoder_and_three(name: str) -> None:
    kind = FUSIONS[name]
    three = (*INPUTS, TokenShape(tokens=16, dim=5, grid=Grid(rows=4, cols=4)))
    for inputs in (INPUTS[:1], three):
        check_fusion(kind, kind.Options.example(), inputs=inputs)


@pytest.mark.parametrize("name", FUSIONS)
def test_it_trains_as_much_as_it_counts(name: str) -> None:
    kind = FUSIONS[name]
    options = kind.Options.example()
    built = kind(options, inputs=INPUTS, dim=16)
    real = sum(parameter.numel() for parameter in built.parameters())
    assert kind.count_parameters(options, inputs=INPUTS, dim=16) == real > 0


@pytest.mark.parametrize(("name", "what"), SIZED)
def test_the_option_that_changes_its_size_goes_one_way(name: str, what: str) -> None:
    kind = FUSIONS[name]
    option = kind.sizes[what]

    def size(value: int) -> int:
        options = kind.Options.model_validate({**kind.Options.example().model_dump(), option: value})
        if what == "parameters":
            return kind.count_parameters(options, inputs=INPUTS, dim=16)
        return sum(shape.tokens for shape in kind.describe(options, inputs=INPUTS, dim=16))

    sizes = [size(value) for value in (1, 2, 4)]
    ordered = sorted(sizes, reverse=sizes[0] > sizes[-1])
    assert sizes == ordered
    assert len(set(sizes)) == 3
    assert what == "tokens" or sizes[0] < sizes[-1]


def width_does_not_matter(kind: type[Fusion]) -> bool:
    options = kind.Options.example()
    runs = [kind.describe(options, inputs=INPUTS, dim=dim) for dim in (1, 7)]
    return [(run.tokens, run.grid) for run in runs[0]] == [(run.tokens, run.grid) for run in runs[1]]


@pytest.mark.parametrize("name", FUSIONS)
def test_recipes_are_checked_before_the_width_is_known(name: str) -> None:
    # Checking a recipe describes the fusion for a width of one, since it does not ask the language model.
    assert width_does_not_matter(FUSIONS[name])


@pytest.mark.parametrize("name", FUSIONS)
def test_it_runs_in_bfloat16(name: str) -> None:
    kind = FUSIONS[name]
    fusion = kind(kind.Options.example(), inputs=INPUTS, dim=16).to(torch.bfloat16)
    parts = [VisualTokens.on_grid(torch.randn(2, one.tokens, one.dim).bfloat16(), one.grid) for one in INPUTS]
    assert fusion(parts).values.dtype == torch.bfloat16
