"""The MLP that several fusions project with."""

import pytest
import torch
from torch import nn

from polyvex.fusion.projection import ProjectionOptions, check_hidden, projection


def test_two_layers_are_llavas() -> None:
    # LLaVA-1.5's mlp2x_gelu: Linear(d_v, D), GELU(), Linear(D, D).
    llava = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8))
    made = projection(ProjectionOptions(), 6, 8)
    made.load_state_dict(llava.state_dict(), strict=True)
    values = torch.randn(3, 6)
    assert torch.equal(made(values), llava(values))


@pytest.mark.parametrize(
    ("depth", "hidden", "widths"),
    [
        (1, None, [(6, 8)]),
        (2, 5, [(6, 5), (5, 8)]),
        (3, None, [(6, 8), (8, 8), (8, 8)]),
        (4, 5, [(6, 5), (5, 5), (5, 5), (5, 8)]),
    ],
)
def test_hidden_is_the_width_between_layers(depth: int, hidden: int | None, widths: list[tuple[int, int]]) -> None:
    made = projection(ProjectionOptions(depth=depth, hidden=hidden), 6, 8)
    assert [(one.in_features, one.out_features) for one in made if isinstance(one, nn.Linear)] == widths
    assert sum(isinstance(one, nn.GELU) for one in made) == depth - 1


def test_a_width_between_layers_needs_two_of_them() -> None:
    with pytest.raises(ValueError, match="hidden = 5 has no effect with depth = 1"):
        check_hidden(ProjectionOptions(depth=1, hidden=5))
    check_hidden(ProjectionOptions(depth=2, hidden=5))
    check_hidden(ProjectionOptions(depth=1))
