"""Maps must grow as the image does before their places are trusted."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from polyvex_hf.maps import find_stages
from torch import Tensor, nn


class Net(nn.Module):
    """Two stages of stride 2 each; ``turn`` is what it does to its maps before it gives them out."""

    def __init__(self, turn: tuple[int, ...] | None = None, stages: int = 2, further: int = 0):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3, 3, 2, stride=2) for _ in range(stages))
        self.further = nn.ModuleList(nn.Identity() for _ in range(further))
        self.turn = turn
        self.config = SimpleNamespace()

    def forward(self, pixel_values: Tensor, output_hidden_states: Any = None) -> Any:
        found = [pixel_values]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return SimpleNamespace(hidden_states=tuple(one.permute(self.turn) if self.turn else one for one in found))


def looked_at(**options: Any) -> Any:
    with torch.device("meta"):
        net = Net(**options)
    return find_stages(net, "mine", "net")


def test_stages_are_found_with_their_strides() -> None:
    stages = looked_at()
    assert (stages.path, stages.count, stages.strides) == ("stages", 2, (2, 4))


@pytest.mark.parametrize("turn", [(0, 2, 3, 1), (0, 1, 3, 2), (0, 3, 1, 2)])
def test_maps_whose_axes_lie_otherwise_are_refused(turn: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not grow as the image does"):
        looked_at(turn=turn)


def test_stages_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(ValueError, match="which part makes each cannot be told"):
        looked_at(further=2)
