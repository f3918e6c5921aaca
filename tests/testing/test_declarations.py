"""The kit's checks of what components say of themselves, and of values of a wrong kind."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL.Image import Image
from torch import Tensor, nn

from polyvex.data.base import Dataset, DatasetOptions
from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    normalize,
    resize_square,
)
from polyvex.testing import check_dataset, check_encoder
from polyvex.tokens import TokenShape, VisualTokens

FACTS = EncoderFacts(
    shape=TokenShape(tokens=1, dim=3),
    image_size=(8, 8),
    parameters=3,
    license=License(name="MIT", commercial=True),
    source="a test",
)


class Plain(VisionEncoder):
    """One token without a place: the mean of each channel times a weight."""

    summary: ClassVar[str] = "a test"
    facts: ClassVar[Any] = FACTS
    place: ClassVar[Any] = WeightsPlace(path=Path(__file__), install="pip install nothing")

    def __init__(self, options: EncoderOptions):
        super().__init__(options)
        self.weight = nn.Parameter(torch.ones(3))

    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        return cls.facts

    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        return cls.place

    def load_pretrained(self) -> Any:
        with torch.no_grad():
            self.weight.fill_(2.0)
        return WeightsReport(source="a test", sha256="0" * 64, loaded=["weight"])

    def transform(self, image: Image) -> Tensor:
        return normalize(resize_square(image, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def forward(self, pixels: Tensor) -> Any:
        return VisualTokens.on_grid((pixels.mean(dim=(2, 3)) * self.weight)[:, None], None)


class OptionsAreNoClass(Plain):
    Options: ClassVar[Any] = None


class OptionsOfAnotherKind(Plain):
    Options: ClassVar[Any] = DatasetOptions


class FactsAreATuple(Plain):
    facts = (1, 3)


class NoSource(Plain):
    facts = dataclasses.replace(FACTS, source=" ")


class NoLicense(Plain):
    facts = dataclasses.replace(FACTS, license=License(name="", commercial=True))


class PlaceIsAPath(Plain):
    place = Path(__file__)


class NoInstall(Plain):
    place = WeightsPlace(path=None, install="")


class PlaceIsNotThere(Plain):
    place = WeightsPlace(path=Path("nowhere.bin"), install="pip install nothing")


class OtherShapesOnMeta(Plain):
    def __init__(self, options: EncoderOptions):
        super().__init__(options)
        if self.weight.device.type == "meta":
            self.weight = nn.Parameter(torch.ones(4))


class ReturnsATensor(Plain):
    def forward(self, pixels: Tensor) -> Any:
        return super().forward(pixels).values


class JoinsTheBatch(Plain):
    def forward(self, pixels: Tensor) -> Any:
        return VisualTokens.on_grid(super().forward(pixels).values.mean(dim=0, keepdim=True), None)


class SecondSource(Plain):
    def forward(self, pixels: Tensor) -> Any:
        tokens = super().forward(pixels)
        layout = replace(tokens.layout, source=tokens.layout.source + 1)
        return VisualTokens(values=tokens.values, layout=layout)


class WeightWithoutUse(Plain):
    def forward(self, pixels: Tensor) -> Any:
        shift = pixels.mean(dim=(2, 3)) + torch.zeros_like(self.weight, requires_grad=self.weight.requires_grad)
        return VisualTokens.on_grid(shift[:, None], None)


class NanOnSmoothImages(Plain):
    """Noise has values below -1; a transformed image has none."""

    def forward(self, pixels: Tensor) -> Any:
        tokens = super().forward(pixels)
        smooth = (pixels.amin(dim=(1, 2, 3)) >= -1).to(pixels)
        return VisualTokens.on_grid(tokens.values + (smooth / (1 - smooth) * 0)[:, None, None], None)


BROKEN = {
    OptionsAreNoClass: "Options is None; expected a subclass of EncoderOptions",
    OptionsOfAnotherKind: "expected a subclass of EncoderOptions",
    FactsAreATuple: "describe returned tuple; expected EncoderFacts",
    NoSource: "describe gives no source",
    NoLicense: "describe gives no licence name",
    PlaceIsAPath: r"weights returned \w*Path; expected WeightsPlace",
    NoInstall: "weights does not say how to install",
    PlaceIsNotThere: "weights says nowhere.bin, where there is nothing",
    OtherShapesOnMeta: r"other keys or shapes under torch.device\(\"meta\"\)",
    ReturnsATensor: "returned Tensor; expected VisualTokens",
    JoinsTheBatch: r"returned values of shape \(1, 1, 3\) for 2 images; expected \(2, 1, 3\)",
    SecondSource: "sources other than 0",
    WeightWithoutUse: "no parameter gets a gradient",
    NanOnSmoothImages: "not finite for a transformed image",
}


def test_a_plain_encoder_without_a_grid_passes():
    check_encoder(Plain, EncoderOptions())
    check_encoder(Plain, EncoderOptions(), pretrained=True)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_encoder_fails_for_its_own_reason(broken: type[Plain]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_encoder(broken, EncoderOptions())

    assert broken.__name__ in str(caught.value)


class ReportIsNone(Plain):
    def load_pretrained(self) -> Any:
        super().load_pretrained()


class ReportWithoutSource(Plain):
    def load_pretrained(self) -> Any:
        return dataclasses.replace(super().load_pretrained(), source="")


@pytest.mark.parametrize(
    ("broken", "told"), [(ReportIsNone, "returned NoneType"), (ReportWithoutSource, "the report names no source")]
)
def test_a_wrong_report_fails(broken: type[Plain], told: str):
    with pytest.raises(AssertionError, match=told):
        check_encoder(broken, EncoderOptions(), pretrained=True)


class GivesTuples(Dataset):
    summary: ClassVar[str] = "a test"

    def splits(self) -> list[str]:
        return ["train"]

    def samples(self, split: str) -> Any:
        from polyvex.errors import DataError

        if split != "train":
            raise DataError("no such split")
        return [("what?", "that")]


def test_samples_of_another_kind_fail():
    with pytest.raises(AssertionError, match=r"GivesTuples, split train.*\n.*got tuple; expected Sample"):
        check_dataset(GivesTuples, DatasetOptions())


def test_a_class_without_one_of_its_methods_is_told_which():
    class WithoutWeights(VisionEncoder[EncoderOptions]):
        summary: ClassVar[str] = "a test"

        @classmethod
        def describe(cls, options: EncoderOptions) -> EncoderFacts:
            raise AssertionError("asked although the class is not whole")

    with pytest.raises(AssertionError, match="does not implement forward, load_pretrained, transform, weights"):
        check_encoder(WithoutWeights, EncoderOptions())
