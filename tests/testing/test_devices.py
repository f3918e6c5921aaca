"""Tokens stay on the device of the pixels, which can be told without a GPU."""

import pytest
import torch
from torch import Tensor

from polyvex.testing import check_encoder
from polyvex.testing.devices import check_device
from polyvex.tokens import VisualTokens

from .good import DIM, GRID, Good, GoodOptions


class MakesItsOwnTensor(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) + torch.linspace(0, 1, DIM, dtype=pixels.dtype)


class ReturnsToTheProcessor(Good):
    def forward(self, pixels: Tensor) -> VisualTokens:
        return VisualTokens.on_grid(self.features(pixels).cpu(), GRID)


class MakesATensorWhereThePixelsAre(Good):
    def features(self, pixels: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, DIM, dtype=pixels.dtype, device=pixels.device)
        return super().features(pixels) + ramp


class LeavesTorch(Good):
    """Reads values, as a runtime of another library would, and brings the tokens back."""

    def features(self, pixels: Tensor) -> Tensor:
        shown = torch.from_numpy(pixels.detach().cpu().numpy()).to(pixels)
        return super().features(pixels) + 0 * shown.mean()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (MakesItsOwnTensor, "fails on a GPU: .*cuda:0.*cpu.* Make tensors in forward on the device of the pixels"),
        (ReturnsToTheProcessor, "returned tokens on cpu for pixels on a GPU"),
    ],
)
def test_another_device_fails(broken: type[Good], told: str):
    with pytest.raises(AssertionError, match=told) as caught:
        check_encoder(broken, GoodOptions())

    assert broken.__name__ in str(caught.value)


@pytest.mark.parametrize("good", [Good, MakesATensorWhereThePixelsAre, LeavesTorch], ids=lambda good: good.__name__)
def test_the_device_that_came_in_passes(good: type[Good]):
    encoder = good(GoodOptions()).eval()
    check_device(encoder, good.describe(GoodOptions()))

    assert {value.device.type for value in encoder.state_dict().values()} == {"cpu"}, "the encoder is left as it was"
