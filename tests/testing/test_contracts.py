"""The kit passes a good encoder, and fails each broken one for its own reason."""

import re
from typing import ClassVar

import pytest
import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor, nn

from polyvex.encoders import EncoderFacts, EncoderOptions, WeightsPlace, WeightsReport, normalize, resize_square
from polyvex.testing import check_encoder
from polyvex.testing.declarations import check_flops
from polyvex.tokens import TokenShape, VisualTokens

from .good import DIM, GRID, HALF, PATCH, SIDE, Good, GoodOptions


class NoSummary(Good):
    summary = ""


class Undescribed(Good):
    class Options(GoodOptions):
        bare: int = 3


class AsksForMore(Good):
    def __init__(self, options: GoodOptions, dim: int):
        super().__init__(options)


class OtherGridThanTokens(Good):
    shape_told = TokenShape(tokens=15, dim=DIM, grid=GRID)


class MiscountsParameters(Good):
    parameters_told = Good.parameters_told - 1


class MiscountsFlops(Good):
    flops_told = 2 * Good.parameters_told * GRID.tokens // 4


class ReadsValuesWhenBuilt(Good):
    def __init__(self, options: GoodOptions):
        super().__init__(options)
        self.largest = self.conv.weight.max().item()


class TakesMemoryOnMeta(Good):
    def __init__(self, options: GoodOptions):
        super().__init__(options)
        self.conv.bias = nn.Parameter(torch.zeros(DIM, device="cpu"))


class KeepsClassToken(Good):
    def features(self, pixels: Tensor) -> Tensor:
        patches = super().features(pixels)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)

    def forward(self, pixels: Tensor) -> VisualTokens:
        return VisualTokens.on_grid(self.features(pixels), None)


class DropsAToken(Good):
    def forward(self, pixels: Tensor) -> VisualTokens:
        return VisualTokens.on_grid(self.features(pixels)[:, 1:], None)


class WrongWidth(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels)[..., :-1]


class NotFinite(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) / 0


class LosesItsGrid(Good):
    def forward(self, pixels: Tensor) -> VisualTokens:
        return VisualTokens.on_grid(self.features(pixels), None)


class RandomOutput(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return nn.functional.dropout(super().features(pixels), 0.1)


class ChangesItsInput(Good):
    def features(self, pixels: Tensor) -> Tensor:
        values = super().features(pixels)
        pixels.detach().mul_(0.5)
        return values


class LeakingBatchNorm(Good):
    def train(self, mode: bool = True) -> "LeakingBatchNorm":
        return super().train(True)


class Transposed(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels.transpose(2, 3))


class BottomUp(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels.flip(2))


class KeepsClassTokenDropsLast(Good):
    def features(self, pixels: Tensor) -> Tensor:
        patches = super().features(pixels)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches[:, :-1]], dim=1)


class Shuffled(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels)[:, [9, 4, 15, 2, 7, 12, 1, 10, 5, 0, 11, 14, 3, 8, 13, 6]]


class Blind(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels * 0) + 1


class FixedType(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels).float()


class FixedTypeInside(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels.float())


class CutsTheGradient(Good):
    @torch.no_grad()
    def forward(self, pixels: Tensor) -> VisualTokens:
        return super().forward(pixels)


class AlwaysBuildsAGraph(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels).detach().requires_grad_()


class ForgetsABuffer(Good):
    def __init__(self, options: GoodOptions):
        super().__init__(options)
        self.register_buffer("scale", torch.full((DIM,), 2.0), persistent=False)

    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) * self.scale


class KeepsAPlainTensor(Good):
    def __init__(self, options: GoodOptions):
        super().__init__(options)
        self.scale = torch.full((DIM,), 2.0)

    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) * self.scale.to(pixels)


class KeepsANumberOfItsOwn(Good):
    made: ClassVar[int] = 0

    def __init__(self, options: GoodOptions):
        super().__init__(options)
        type(self).made += 1
        self.factor = type(self).made

    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) * self.factor


class WrongTransformSize(Good):
    def transform(self, image: Image) -> Tensor:
        return normalize(resize_square(image, SIDE - PATCH), mean=HALF, std=HALF)


class KeepsAspect(Good):
    def transform(self, image: Image) -> Tensor:
        image = image.convert("RGB").resize((SIDE, max(1, SIDE * image.height // image.width)))
        return normalize(image, mean=HALF, std=HALF)


class OnlyRgb(Good):
    def transform(self, image: Image) -> Tensor:
        import numpy as np

        pixels = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1)


class DoublePixels(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(image).double()


class StretchesContrast(Good):
    def transform(self, image: Image) -> Tensor:
        pixels = super().transform(image)
        darkest, brightest = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
        return (pixels - darkest) / (brightest - darkest)


class SpoilsTheImage(Good):
    def transform(self, image: Image) -> Tensor:
        image.paste(0, (0, 0, 1, 1))
        return super().transform(image)


class TransposedTransform(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(image).transpose(1, 2)


class SubtractsTheBatchMean(Good):
    def features(self, pixels: Tensor) -> Tensor:
        values = super().features(pixels)
        return values - values.mean(dim=0)


class DividesByTheImagesDeviation(Good):
    """Finite for any picture but one of a single color."""

    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) / pixels.std(dim=(1, 2, 3))[:, None, None]


class DividesInItsTransform(Good):
    def transform(self, image: Image) -> Tensor:
        pixels = super().transform(image)
        return pixels / (pixels - pixels.mean()).abs().max() if image.size == (30, 40) else pixels


class DescribesByDivision(Good):
    class Options(GoodOptions):
        patches: int = Field(default=4, description="Patches per side.")

    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        assert SIDE // options.patches < 99  # type: ignore[attr-defined]
        return super().describe(options)


class RefusesOptionsWithoutAWord(DescribesByDivision):
    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        if options.patches < 1:  # type: ignore[attr-defined]
            raise ValueError
        return super().describe(options)


BROKEN = {
    SubtractsTheBatchMean: "depend on the other images of its batch",
    DividesByTheImagesDeviation: "gives NaN or Inf for an image that is black everywhere",
    DividesInItsTransform: "transform gives NaN or Inf for an image that is black everywhere",
    DescribesByDivision: r"describe raises ZeroDivisionError for the option patches = 0.*Field\(ge=1\)",
    RefusesOptionsWithoutAWord: "describe refuses patches = -1 without a message",
    NoSummary: "expected one line for listings",
    Undescribed: "no description for bare",
    AsksForMore: "constructor needs .*'dim'.*expected the options and nothing else",
    OtherGridThanTokens: "says 15 tokens on a grid of 4x4",
    MiscountsParameters: "describe says 2,339 parameters; the built encoder has 2,340",
    MiscountsFlops: "flops; one image's forward takes 73,728",
    ReadsValuesWhenBuilt: 'cannot be built under torch.device\\("meta"\\)',
    TakesMemoryOnMeta: "takes memory for conv.bias",
    KeepsClassToken: "17 tokens per image; describe says 16 \\(is a class token left in",
    DropsAToken: "15 tokens per image; describe says 16",
    WrongWidth: "tokens are 11 wide; describe says 12",
    NotFinite: "not finite",
    LosesItsGrid: "layout does not give its tokens the places of the grid 4x4",
    RandomOutput: "two outputs for the same pixels",
    ChangesItsInput: "changes pixels in place in eval mode",
    LeakingBatchNorm: r"changes its own norm\..* in eval mode.* Is a batch norm in training mode",
    Transposed: "lie column by column",
    BottomUp: "with the rows from bottom to top",
    KeepsClassTokenDropsLast: "shifted by one \\(is a class token left in front",
    Shuffled: "has nothing to do with which of them change",
    Blind: "changes no token",
    FixedType: "in torch.float64 returned torch.float32",
    FixedTypeInside: "in torch.float64 fails",
    CutsTheGradient: "cuts the gradient",
    AlwaysBuildsAGraph: "require a gradient although all its parameters are frozen",
    ForgetsABuffer: "scale is not in the state dict",
    KeepsAPlainTensor: "neither a parameter nor a buffer",
    KeepsANumberOfItsOwn: "other tokens after its state dict went through a new instance",
    WrongTransformSize: "pixels of shape \\(3, 24, 24\\) for an image of kind 'RGB'",
    KeepsAspect: "describe promises \\(3, 32, 32\\)",
    OnlyRgb: "fails on an image of kind 'grey'",
    DoublePixels: "gives torch.float64",
    StretchesContrast: "not finite for '1x1'",
    SpoilsTheImage: "changes the image that it is given",
    TransposedTransform: "bright top half of an image at the top",
}


def test_a_good_encoder_passes_and_is_returned():
    encoder = check_encoder(Good, GoodOptions())

    assert isinstance(encoder, Good)
    assert not encoder.training


def test_a_good_encoder_passes_with_its_weights():
    encoder = check_encoder(Good, GoodOptions(), pretrained=True)

    assert encoder.norm.bias[0] == 0.25


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_encoder_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_encoder(broken, broken.Options())

    assert broken.__name__ in str(caught.value)


class MissingWeights(Good):
    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        return WeightsPlace(path=None, install="pip install some-wheel")


class LoadsNothing(Good):
    def load_pretrained(self) -> WeightsReport:
        return WeightsReport(source="a test", sha256="0" * 64, loaded=list(self.state_dict()))


class LoadsAPart(Good):
    def load_pretrained(self) -> WeightsReport:
        kept = self.norm.bias.detach().clone()
        report = super().load_pretrained()
        self.norm.bias.data.copy_(kept)
        return report


class DoesNotTellAKey(Good):
    def load_pretrained(self) -> WeightsReport:
        report = super().load_pretrained()
        return WeightsReport(source=report.source, sha256=report.sha256, loaded=report.loaded[1:])


class PassesWithAMissingKey(Good):
    def load_pretrained(self) -> WeightsReport:
        report = super().load_pretrained()
        return WeightsReport(source="x", sha256=report.sha256, loaded=report.loaded[1:], missing=report.loaded[:1])


class GivesNoDigest(Good):
    def load_pretrained(self) -> WeightsReport:
        return WeightsReport(source="x", sha256="", loaded=super().load_pretrained().loaded)


class NeedsNoWeightsButChanges(Good):
    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        return WeightsPlace(path=None, install="", needed=False)


BADLY_LOADED = {
    MissingWeights: "its weights are not here. To get them: pip install some-wheel",
    LoadsNothing: "changed no weight",
    LoadsAPart: "does not set norm.bias",
    DoesNotTellAKey: "does not account for conv.weight",
    PassesWithAMissingKey: "the weights lack conv.weight",
    GivesNoDigest: "expected 64 hexadecimal digits",
    NeedsNoWeightsButChanges: "load_pretrained must give the constructor's",
}


@pytest.mark.parametrize("broken", BADLY_LOADED, ids=lambda broken: broken.__name__)
def test_badly_loaded_weights_fail_for_their_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BADLY_LOADED[broken]):
        check_encoder(broken, broken.Options(), pretrained=True)


def test_options_of_another_class_are_refused():
    with pytest.raises(AssertionError, match=re.escape("the options are EncoderOptions; expected Good.Options")):
        check_encoder(Good, EncoderOptions())


class TellsNoCost(Good):
    flops_told = None


def test_an_unknown_cost_is_allowed():
    check_flops(TellsNoCost(GoodOptions()).eval(), TellsNoCost.describe(GoodOptions()))


def test_the_random_state_stays_as_it_was():
    torch.manual_seed(5)
    wanted = torch.rand(3)

    torch.manual_seed(5)
    check_encoder(Good, GoodOptions())

    assert torch.equal(torch.rand(3), wanted)


def test_fresh_weights_are_the_same_in_each_run():
    torch.manual_seed(1)
    first = check_encoder(Good, GoodOptions()).conv.weight
    torch.manual_seed(2)

    assert torch.equal(check_encoder(Good, GoodOptions()).conv.weight, first)
