"""The kit passes good position schemes, and fails each broken one for its own reason."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from polyvex.positions import PositionOptions, PositionScheme, RunPositions, register_position_schemes
from polyvex.testing import check_position_scheme
from polyvex.tokens import VisualLayout

SCHEMES = register_position_schemes()


class Good(PositionScheme):
    """Every token has a position of its own, and a learned vector is added to each visual one."""

    summary: ClassVar[str] = "a test"

    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        self.added = nn.Parameter(torch.zeros(dim))

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        return RunPositions(offsets=torch.arange(run.tokens), extent=run.tokens)

    def embed(self, values: Any, *rest: Any) -> Any:
        return values + self.added


class NoSummary(Good):
    summary = ""


class ReadsValuesWhenBuilt(Good):
    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        self.first = self.added[0].item()


class ReturnsATensor(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> Any:
        return super().within(run, image=image).offsets


class Changed(Good):
    """Changes the offsets of a good scheme."""

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        found = super().within(run, image=image)
        return RunPositions(offsets=self.changed(found.offsets), extent=found.extent)

    def changed(self, offsets: Tensor) -> Tensor:
        raise NotImplementedError


class OneOffsetTooMany(Changed):
    def changed(self, offsets: Tensor) -> Tensor:
        return torch.cat([offsets, offsets[-1:]])


class BeginsBeforeTheRun(Changed):
    def changed(self, offsets: Tensor) -> Tensor:
        return offsets - 1


class OffsetsWithoutEnd(Changed):
    def changed(self, offsets: Tensor) -> Tensor:
        return offsets / 0


class TakesUpMoreThanItSays(Changed):
    def changed(self, offsets: Tensor) -> Tensor:
        return offsets + 1


class RemembersTheRunBefore(Good):
    last: int = 0

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        first, self.last = self.last, run.tokens
        return RunPositions(offsets=torch.arange(run.tokens), extent=run.tokens + first)


class EmbedsInFloat32(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return super().embed(values, *rest).float()


class EmbedsImagesTogether(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values - values.mean() + self.added


class RandomEmbeddings(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values + self.added + torch.randn(()) * 0.1


class RandomOffsets(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        return RunPositions(offsets=torch.arange(run.tokens) * torch.rand(()), extent=run.tokens)


class OffsetsWithAFraction(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        return RunPositions(offsets=torch.arange(run.tokens) / 4, extent=run.tokens / 4)


class EmbedsMoreEachTime(Good):
    """Gives a token more with every call; check_same must not compare what has other shapes."""

    calls: ClassVar[int] = 0

    def embed(self, values: Any, *rest: Any) -> Any:
        type(self).calls += 1
        return torch.cat([values] + [values[:, :1]] * self.calls, dim=1)


class VectorWithoutUse(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values


class KeepsANumberOfItsOwn(Good):
    made: ClassVar[int] = 0

    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        type(self).made += 1
        self.factor = type(self).made

    def embed(self, values: Any, *rest: Any) -> Any:
        return (values + self.added) * self.factor


class ExtentIsATensor(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        offsets = torch.arange(run.tokens)
        return RunPositions(offsets=offsets, extent=offsets.max() + 1)  # type: ignore[arg-type]


class ExtentIsNotFinite(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        return RunPositions(offsets=torch.arange(run.tokens), extent=float("inf"))


class OffsetsOnAnotherDevice(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        return RunPositions(offsets=torch.arange(run.tokens, device="meta"), extent=run.tokens)


class OffsetsFromItsWeights(Good):
    """Weights are on the GPU of the model, layouts are not."""

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        offsets = (self.added.detach()[:1] * 0).long().expand(run.tokens)
        return RunPositions(offsets=offsets, extent=1)


class AddsItsWeightsToTheLayout(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        return RunPositions(offsets=torch.arange(run.tokens) + self.added.detach().sum() * 0, extent=run.tokens)


class EmbedsOnTheCPU(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values + self.added + torch.zeros(values.shape[-1], dtype=values.dtype)


class WritesIntoTheEmbeddings(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values.add_(self.added)


class WritesIntoTheLayout(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        run.coords.clamp_(min=0)
        return super().within(run, image=image)


class DividesByTheDeviation(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return (values + self.added) / values.std(dim=-1, keepdim=True)


class ThreeRunsOnly(Good):
    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        _, _, _ = layout.run.unique()


class TwoTokensAtLeast(Good):
    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        offsets = torch.arange(run.tokens)
        return RunPositions(offsets=offsets, extent=int(offsets[1:].max()) + 1)


class NeedsAGrid(Good):
    """Fails where a recipe would be refused."""

    needs_grid = True

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        if int(run.coords[0, 0]) < 0:
            raise RuntimeError("no grid")
        return super().within(run, image=image)


BROKEN = {
    ExtentIsATensor: r"gives the extent tensor\(6\) \(Tensor\); expected a finite Python number",
    ExtentIsNotFinite: r"gives the extent inf \(float\)",
    OffsetsOnAnotherDevice: "gives offsets on meta for a layout on cpu",
    OffsetsFromItsWeights: "fails when weights and inputs are on a GPU: within gives offsets on the GPU",
    AddsItsWeightsToTheLayout: "fails when weights and inputs are on a GPU: torch operation 'add'",
    EmbedsOnTheCPU: "fails when weights and inputs are on a GPU: torch operation 'add'",
    WritesIntoTheEmbeddings: "changes the embeddings in place in eval mode",
    WritesIntoTheLayout: r"changes the run's layout\.coords in place",
    DividesByTheDeviation: "NaN, Inf or huge values as embeddings for inputs that are 0 everywhere",
    ThreeRunsOnly: "fails for an image of one token: ValueError",
    TwoTokensAtLeast: "fails for an image of one token",
    NoSummary: "expected one line for listings",
    ReadsValuesWhenBuilt: 'cannot be built under torch.device\\("meta"\\)',
    ReturnsATensor: "within returned Tensor",
    OneOffsetTooMany: r"offsets of shape \(7,\) for a run of 6 tokens",
    BeginsBeforeTheRun: r"not above -1, the position in front of the run: \[-1, 0",
    OffsetsWithoutEnd: "offsets that are not finite",
    TakesUpMoreThanItSays: r"takes up 6 positions, but its offsets are \[1, 2, 3, 4, 5, 6\]",
    RemembersTheRunBefore: "depending on what was asked before",
    EmbedsInFloat32: "embed returned .*torch.float32.*; expected what came in",
    EmbedsImagesTogether: "depend on the other images of its batch",
    RandomEmbeddings: "two outputs for the same input",
    RandomOffsets: "depending on what was asked before",
    EmbedsMoreEachTime: r"two outputs for the same input.*\(embeddings: \(2, \d+, 8\) and \(2, \d+, 8\)\)",
    VectorWithoutUse: "no gradient reaches added",
    KeepsANumberOfItsOwn: "other values after its state dict went through a new instance",
}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_schemes_of_the_core_pass(name: str):
    scheme = check_position_scheme(SCHEMES[name], SCHEMES[name].Options())

    assert isinstance(scheme, SCHEMES[name])
    assert not scheme.training


@pytest.mark.parametrize("good", [Good, OffsetsWithAFraction, NeedsAGrid], ids=lambda good: good.__name__)
def test_a_good_scheme_passes(good: type[Good]):
    """Positions may be numbers with a fraction, too."""
    check_position_scheme(good, PositionOptions())


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_scheme_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_position_scheme(broken, PositionOptions())

    assert broken.__name__ in str(caught.value)
