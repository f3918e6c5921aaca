"""The kit passes a good fusion, and fails each broken one for its own reason."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import nn

from polyvex.fusion import Fusion, FusionOptions
from polyvex.testing import check_fusion
from polyvex.testing.fusions import INPUTS
from polyvex.tokens import Grid, TokenShape, VisualLayout, VisualTokens


class Good(Fusion):
    """One linear map per encoder."""

    summary: ClassVar[str] = "a test"

    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.maps = nn.ModuleList(nn.Linear(shape.dim, dim) for shape in inputs)

    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        return [TokenShape(tokens=shape.tokens, dim=dim, grid=shape.grid) for shape in inputs]

    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return torch.cat([one(part.values) for one, part in zip(self.maps, parts, strict=True)], dim=1)

    def forward(self, parts: Sequence[VisualTokens]) -> Any:
        return VisualTokens(values=self.fused(parts), layout=self.layout)


class RefusesOtherGrids(Good):
    """As it should be: what cannot work is a ValueError."""

    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        if len({shape.grid for shape in inputs}) > 1:
            raise ValueError("encoders have several grids; give them one")
        return super().describe(options, inputs=inputs, dim=dim)


class NoSummary(Good):
    summary = ""


class Undescribed(Good):
    class Options(FusionOptions):
        bare: int = 3


class SizedByAnOptionThatIsNotThere(Good):
    sizes: ClassVar[dict[str, str]] = {"tokens": "queries"}


class SizesSomethingElse(Good):
    sizes: ClassVar[dict[str, str]] = {"flops": "queries"}


class FailsWithoutAGrid(Good):
    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        return [TokenShape(tokens=shape.grid.tokens, dim=dim, grid=shape.grid) for shape in inputs]  # type: ignore[union-attr]


class RefusesWithoutAWord(Good):
    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        if len(inputs) == 1:
            raise ValueError
        return super().describe(options, inputs=inputs, dim=dim)


class DescribesOneShape(Good):
    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        return inputs[0]


class DescribesAnotherWidth(Good):
    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        return list(inputs)


class DescribesAnotherGrid(Good):
    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        return [TokenShape(tokens=5, dim=dim, grid=Grid(rows=2, cols=2))]


class ReadsValuesWhenBuilt(Good):
    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.largest = self.maps[0].weight.max().item()  # type: ignore[operator]


class TakesMemoryOnMeta(Good):
    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.shift = nn.Parameter(torch.zeros(dim, device="cpu"))


class OtherShapesOnMeta(Good):
    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.shift = nn.Parameter(torch.zeros(dim))
        if self.shift.is_meta:
            self.shift = nn.Parameter(torch.zeros(dim + 1))


class DescribesOneRunMoreEachTime(Good):
    told: ClassVar[int] = 0

    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        cls.told += 1
        return [TokenShape(tokens=1, dim=dim)] * cls.told


class ReturnsATensor(Good):
    def forward(self, parts: Sequence[VisualTokens]) -> Any:
        return self.fused(parts)


class DropsATokenOfEach(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return super().fused(parts)[:, 1:]


class NotFinite(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return super().fused(parts) / 0


class LosesThePlaces(Good):
    def forward(self, parts: Sequence[VisualTokens]) -> Any:
        values = self.fused(parts)
        return VisualTokens(values=values, layout=VisualLayout.of([TokenShape(tokens=values.shape[1], dim=self.dim)]))


class RandomOutput(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return nn.functional.dropout(super().fused(parts), 0.1)


class MixesImages(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        values = super().fused(parts)
        return values - values.mean(dim=0)


class FixedType(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return super().fused(parts).float()


class FixedTypeInside(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return super().fused([VisualTokens(values=part.values.float(), layout=part.layout) for part in parts])


class WeightWithoutUse(Good):
    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.idle = nn.Parameter(torch.zeros(dim))


class IgnoresTheSecond(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        first, second = parts
        return super().fused([first, VisualTokens(values=torch.ones_like(second.values), layout=second.layout)])


class KeepsANumberOfItsOwn(Good):
    made: ClassVar[int] = 0

    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        type(self).made += 1
        self.factor = type(self).made

    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return super().fused(parts) * self.factor


class WritesIntoItsInputs(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        parts[0].values.mul_(2)
        return super().fused(parts)


class WritesWhereItSeesNoChange(Good):
    """No value of a random input is so small; the next input may have one."""

    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        parts[1].values.clamp_(min=-100)
        return super().fused(parts)


class WritesIntoItsInputsInTraining(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        if self.training:
            parts[0].values.mul_(2)
        return super().fused(parts)


class TakesFromTheList(Good):
    def forward(self, parts: Sequence[VisualTokens]) -> Any:
        values = self.fused(parts)
        parts.reverse()  # type: ignore[attr-defined]
        return VisualTokens(values=values, layout=self.layout)


class MakesATensorOnTheCPU(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        values = super().fused(parts)
        return values + torch.ones(self.dim, dtype=values.dtype)


class ReturnsToTheCPU(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        return super().fused(parts).cpu()


class DividesByTheDeviation(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        values = super().fused(parts)
        return values / parts[0].values.std(dim=1).mean(dim=1)[:, None, None]


class HasNoGradientAtZero(Good):
    """The output of a blank image is finite, its gradient is not."""

    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        values = super().fused(parts)
        return values * parts[0].values.square().sum(dim=(1, 2), keepdim=True).sqrt()


class TakesTwo(Good):
    def fused(self, parts: Sequence[VisualTokens]) -> torch.Tensor:
        first, second = parts
        return super().fused([first, second])


class TakesTwoWhenBuilt(Good):
    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        self.first, self.second = inputs
        super().__init__(options, inputs=inputs, dim=dim)


class DividesOptions(FusionOptions):
    groups: int = Field(default=2, description="Groups.")


class DividesByAnOption(Good):
    Options = DividesOptions

    @classmethod
    def describe(cls, options: Any, *, inputs: Sequence[TokenShape], dim: int) -> Any:
        assert dim % options.groups in range(dim)
        return super().describe(options, inputs=inputs, dim=dim)


class SeparateButMixed(Good):
    separate = True

    def fuse_one(self, index: int, values: torch.Tensor) -> torch.Tensor:
        return 2 * self.maps[index](values)  # type: ignore[no-any-return]


BROKEN = {
    WritesIntoItsInputs: "changes the tokens of encoder #1 in place in eval mode",
    WritesWhereItSeesNoChange: "changes the tokens of encoder #2 in place in eval mode",
    WritesIntoItsInputsInTraining: "changes the tokens of encoder #1 in place in training mode",
    TakesFromTheList: "changes the list of its inputs",
    MakesATensorOnTheCPU: r"on a GPU: torch operation 'add' combines them with a CPU tensor of shape \(16,\)",
    ReturnsToTheCPU: "returned tokens on the CPU although weights and inputs are on a GPU",
    DividesByTheDeviation: "NaN, Inf or huge values as tokens for inputs that are 0 everywhere",
    HasNoGradientAtZero: "gradients with NaN or Inf for inputs that are 0 everywhere",
    TakesTwo: "fails for 1 encoders of .*, which describe accepts: ValueError: not enough values to unpack",
    TakesTwoWhenBuilt: "fails for 1 encoders of .*, which describe accepts: ValueError: not enough values to unpack",
    DividesByAnOption: "describe raises ZeroDivisionError for the option groups = 0.*Raise a ValueError",
    SeparateButMixed: r"fuse_one\(0, ...\) differs from the run of encoder #1",
    NoSummary: "expected one line for listings",
    Undescribed: "no description for bare",
    SizedByAnOptionThatIsNotThere: "'queries' changes its tokens; there is no such option",
    SizesSomethingElse: "sizes has 'flops'; expected parameters or tokens",
    FailsWithoutAGrid: r"describe fails for encoders of .* 6 tokens \(no grid\): AttributeError.*Refuse .* ValueError",
    RefusesWithoutAWord: "without a word",
    DescribesOneShape: "expected a list of TokenShape",
    DescribesAnotherWidth: "says a width of 12; it was asked for 16",
    DescribesAnotherGrid: "says 5 tokens on a grid of 2x2",
    ReadsValuesWhenBuilt: 'cannot be built under torch.device\\("meta"\\)',
    TakesMemoryOnMeta: "takes memory for shift",
    OtherShapesOnMeta: "other keys or shapes",
    DescribesOneRunMoreEachTime: "describe differs from one call to the next",
    ReturnsATensor: "returned Tensor; expected VisualTokens",
    DropsATokenOfEach: r"tokens of shape \(1, 31, 16\); describe says \(1, 32, 16\)",
    NotFinite: "not finite",
    LosesThePlaces: "layout does not give its tokens the places that describe tells",
    RandomOutput: "two outputs for the same input",
    MixesImages: "depend on the other images of its batch",
    FixedType: "in torch.float64 returned torch.float32",
    FixedTypeInside: "in torch.float64 fails",
    WeightWithoutUse: "no gradient reaches idle",
    IgnoresTheSecond: "no gradient to the tokens of encoder #2; does it leave them out",
    KeepsANumberOfItsOwn: "other values after its state dict went through a new instance",
}


@pytest.mark.parametrize("good", [Good, RefusesOtherGrids], ids=lambda good: good.__name__)
def test_a_good_fusion_passes_and_is_returned(good: type[Good]):
    fusion = check_fusion(good, good.Options())

    assert isinstance(fusion, good)
    assert not fusion.training


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_fusion_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_fusion(broken, broken.Options())

    assert broken.__name__ in str(caught.value)


def test_other_inputs_and_widths_may_be_asked_for():
    fusion = check_fusion(Good, FusionOptions(), inputs=INPUTS[:1], dim=4)

    assert (len(fusion.shapes), fusion.dim) == (1, 4)


class GoodOptions(FusionOptions):
    gain: int = Field(default=1, description="A factor.")


class WithOptions(Good):
    Options = GoodOptions


def test_options_of_another_class_are_refused():
    with pytest.raises(AssertionError, match=r"the options are FusionOptions; expected WithOptions\.Options"):
        check_fusion(WithOptions, FusionOptions())
