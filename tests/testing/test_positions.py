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


BROKEN = {
    NoSummary: "expected one line for listings",
    ReadsValuesWhenBuilt: 'cannot be built under torch.device\\("meta"\\)',
    ReturnsATensor: "within returned Tensor",
    OneOffsetTooMany: r"offsets of shape \(7,\) for a run of 6 tokens",
    BeginsBeforeTheRun: r"below the run's start, or not finite: \[-1, 0",
    OffsetsWithoutEnd: "or not finite",
    TakesUpMoreThanItSays: r"takes up 6 positions, but its offsets are \[1, 2, 3, 4, 5, 6\]",
    RemembersTheRunBefore: "depending on what was asked before",
    EmbedsInFloat32: "embed returned .*torch.float32.*; expected what came in",
    EmbedsImagesTogether: "depend on the other images of its batch",
    RandomEmbeddings: "two outputs for the same input",
    RandomOffsets: "depending on what was asked before",
    EmbedsMoreEachTime: r"two outputs for the same input.*\(embeddings: \(2, 11, 8\) and \(2, 12, 8\)\)",
    VectorWithoutUse: "no gradient reaches added",
    KeepsANumberOfItsOwn: "other values after its state dict went through a new instance",
}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_schemes_of_the_core_pass(name: str):
    scheme = check_position_scheme(SCHEMES[name], SCHEMES[name].Options())

    assert isinstance(scheme, SCHEMES[name])
    assert not scheme.training


@pytest.mark.parametrize("good", [Good, OffsetsWithAFraction], ids=lambda good: good.__name__)
def test_a_good_scheme_passes(good: type[Good]):
    """Positions may be numbers with a fraction, too."""
    check_position_scheme(good, PositionOptions())


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_scheme_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_position_scheme(broken, PositionOptions())

    assert broken.__name__ in str(caught.value)
