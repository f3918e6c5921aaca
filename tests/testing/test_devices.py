"""Tokens stay on the device of the pixels, which can be told without a GPU."""

from functools import cache

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


class ReadsAValueThenMakesItsOwn(Good):
    """A value is read before the mistake, as a branch or a count does."""

    def features(self, pixels: Tensor) -> Tensor:
        shift = torch.ones(DIM, dtype=pixels.dtype) if pixels.mean().item() > -9 else 0
        return super().features(pixels) + shift


class KeepsAPlainTensor(Good):
    """The tensor is neither a parameter nor a buffer, so that ``.to(device)`` does not move it."""

    def features(self, pixels: Tensor) -> Tensor:
        self.shift = getattr(self, "shift", torch.zeros(DIM)).to(pixels.dtype)
        return super().features(pixels) + self.shift


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
        (MakesItsOwnTensor, r"fails when weights and inputs are on a GPU: .* a CPU tensor of shape \(12,\)"),
        (ReadsAValueThenMakesItsOwn, r"fails when weights and inputs are on a GPU: .* a CPU tensor of shape \(12,\)"),
        (KeepsAPlainTensor, r"fails when weights and inputs are on a GPU: .* a CPU tensor of shape \(12,\)"),
        (ReturnsToTheProcessor, "returned tokens on the CPU although weights and inputs are on a GPU"),
    ],
)
def test_another_device_fails(broken: type[Good], told: str):
    with pytest.raises(AssertionError, match=told) as caught:
        check_encoder(broken, GoodOptions())

    assert broken.__name__ in str(caught.value)


@cache
def ramp(device: torch.device) -> Tensor:
    return torch.linspace(0, 1, DIM, device=device)


class KeepsATensorForEachDevice(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) + ramp(pixels.device).to(pixels.dtype)


def test_tensors_kept_for_each_device_pass_after_the_model_was_planned():
    ramp(torch.device("meta"))
    encoder = KeepsATensorForEachDevice(GoodOptions()).eval()

    check_device(encoder, encoder.describe(GoodOptions()))


@pytest.mark.parametrize("good", [Good, MakesATensorWhereThePixelsAre, LeavesTorch], ids=lambda good: good.__name__)
def test_the_device_that_came_in_passes(good: type[Good]):
    encoder = good(GoodOptions()).eval()
    check_device(encoder, good.describe(GoodOptions()))

    assert {value.device.type for value in encoder.state_dict().values()} == {"cpu"}, "the encoder is left as it was"
