"""Weak declarations of components are named with the correction, and all of them at once."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import Field

from polyvex.encoders import VisionEncoder
from polyvex.evaluation import ExactMatch, Metric
from polyvex.fusion import Fusion, FusionOptions, MLPFusion
from polyvex.hooks.declared import declaration_problems
from polyvex.hooks.manager import KINDS, load_registries
from polyvex.hooks.offers import _bases
from polyvex.moe import Router
from polyvex.positions import PositionScheme
from polyvex.positions.schemes import Sequential
from polyvex.tokens import TokenShape


class MyOptions(FusionOptions):
    gain: int = Field(default=1, description="A factor.")


class WithoutOptions(Fusion[MyOptions]):
    summary = "its options have no effect"

    @classmethod
    def describe(cls, options: MyOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        return []


class OptionsOfAnother(WithoutOptions):
    Options = MLPFusion.Options


class Inherits(WithoutOptions):
    Options = MyOptions


class DescribeOfAnInstance(MLPFusion):
    def describe(self, options: Any, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:  # type: ignore[override]
        return []


class DescribeWithoutDim(MLPFusion):
    @classmethod
    def describe(cls, options: Any, inputs: Sequence[TokenShape]) -> list[TokenShape]:  # type: ignore[override]
        return []


class NeedsMoreWhenBuilt(MLPFusion):
    def __init__(self, options: Any, heads: int, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)


class SeparateByWord(MLPFusion):
    separate = "yes"  # type: ignore[assignment]


class VariesByCall(Sequential):
    def varies(self) -> bool:  # type: ignore[override]
        return False


class StaticForward(MLPFusion):
    @staticmethod
    def forward(parts: Any) -> Any:  # type: ignore[override]
        return parts


class AskedForAThreshold(ExactMatch):
    def __init__(self, threshold: float):
        self.threshold = threshold


class ScoresWithoutSample(ExactMatch):
    def score(self, answer: str) -> float:  # type: ignore[override]
        return 1.0


class DefaultsAreFine(ExactMatch):
    def __init__(self, threshold: float = 0.5):
        self.threshold = threshold


class ManyFaults(MLPFusion):
    summary = ""
    separate = 1  # type: ignore[assignment]
    Options = dict  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("component", "base", "problem"),
    [
        (WithoutOptions, Fusion, "is declared with MyOptions but has the Options FusionOptions. Add to the class: "),
        (OptionsOfAnother, Fusion, "is declared with MyOptions but has the Options "),
        (DescribeOfAnInstance, Fusion, "has describe without @classmethod, expected: @classmethod def describe(cls"),
        (DescribeWithoutDim, Fusion, "but polyvex calls describe(options, inputs=..., dim=...)"),
        (NeedsMoreWhenBuilt, Fusion, "but polyvex calls NeedsMoreWhenBuilt(options, inputs=..., dim=...): missing"),
        (SeparateByWord, Fusion, "has separate = 'yes', expected True or False"),
        (VariesByCall, PositionScheme, "has varies as a method, expected a value. Write @property above it"),
        (StaticForward, Fusion, "has forward as a staticmethod, expected a method"),
        (
            AskedForAThreshold,
            Metric,
            "but polyvex calls AskedForAThreshold(): missing a required argument: 'threshold'",
        ),
        (ScoresWithoutSample, Metric, "but polyvex calls score(answer, sample): too many positional arguments"),
        (ExactMatch(), Metric, "is an instance of ExactMatch; register the class itself, without parentheses"),
        (int, Router, "is <class 'int'>, expected a subclass of Router"),
        (VisionEncoder, VisionEncoder, "does not implement describe, forward, load_pretrained, transform, weights of"),
    ],
)
def test_a_weak_declaration_is_named_with_the_correction(component: Any, base: type, problem: str) -> None:
    assert any(problem in found for found in declaration_problems(component, base))


def test_all_problems_of_a_class_come_at_once() -> None:
    found = "; ".join(declaration_problems(ManyFaults, Fusion))
    assert all(word in found for word in ("summary", "Options", "separate"))


@pytest.mark.parametrize(("component", "base"), [(Inherits, Fusion), (DefaultsAreFine, Metric)])
def test_a_complete_declaration_has_no_problem(component: type, base: type) -> None:
    assert declaration_problems(component, base) == []


def test_every_installed_component_is_declared_completely() -> None:
    registries = load_registries()
    entries = [(kind, entry) for kind in KINDS for entry in getattr(registries, kind)]
    assert len(entries) > 30
    assert [
        problem for kind, entry in entries for problem in declaration_problems(entry.component, _bases()[kind])
    ] == []


def test_an_option_that_its_class_lacks_is_explained() -> None:
    with pytest.raises(AttributeError) as caught:
        _ = FusionOptions().gain  # type: ignore[attr-defined]
    assert "FusionOptions has no option 'gain'; its options: none" in str(caught.value)
    assert "Options = MyOptions" in str(caught.value)
    assert getattr(MyOptions(), "other", 3) == 3
    assert MyOptions(gain=2).gain == 2
