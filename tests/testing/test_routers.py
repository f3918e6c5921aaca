"""The kit passes good routers, and fails each broken one for its own reason."""

from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from polyvex.moe import Router, RouterOptions, Routing, TopKRouter
from polyvex.moe.routers import TopKOptions
from polyvex.testing import check_router


class GoodOptions(RouterOptions):
    k: int = Field(default=2, ge=1, description="Experts per token.")


class Good(Router[GoodOptions]):
    """The k best, weighed by a sigmoid, renormalised."""

    Options: ClassVar[type[RouterOptions]] = GoodOptions
    summary: ClassVar[str] = "a test"

    def __init__(self, options: GoodOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight)

    @classmethod
    def check(cls, options: GoodOptions, *, num_experts: int) -> None:
        if options.k > num_experts:
            raise ValueError(f"k is {options.k}, but there are {num_experts} experts")

    @classmethod
    def experts_per_token(cls, options: GoodOptions, *, num_experts: int) -> Any:
        return options.k

    @classmethod
    def weights_sum_to_one(cls, options: GoodOptions) -> Any:
        return True

    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        logits = tokens.float() @ self.weight.float().T
        weight, expert = (best[:, : self.options.k] for best in logits.sigmoid().sort(descending=True, stable=True))
        weight = weight / weight.sum(dim=-1, keepdim=True)
        return {"expert": expert, "weight": weight, "logits": logits, "probs": logits.softmax(dim=-1)}

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Any:
        return Routing(**self.parts(tokens))


class Undescribed(Good):
    class Options(GoodOptions):
        bare: int = 3


class CountsInFractions(Good):
    @classmethod
    def experts_per_token(cls, options: GoodOptions, *, num_experts: int) -> Any:
        return 2.0


class SaysPerhaps(Good):
    @classmethod
    def weights_sum_to_one(cls, options: GoodOptions) -> Any:
        return "perhaps"


class TakesAnyNumber(Good):
    @classmethod
    def check(cls, options: GoodOptions, *, num_experts: int) -> None:
        pass


class RefusesWithoutNumbers(Good):
    @classmethod
    def check(cls, options: GoodOptions, *, num_experts: int) -> None:
        if options.k > num_experts:
            raise ValueError("too few")


class ReadsValuesWhenBuilt(Good):
    def __init__(self, options: GoodOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.largest = self.weight.max().item()


class ReturnsATuple(Good):
    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Any:
        return tuple(self.parts(tokens).values())


class OneChoiceTooFew(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "expert": parts["expert"][:, :1]}


class ShortIndices(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "expert": parts["expert"].int()}


class CountsFromOne(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "expert": parts["expert"] + 1}


class OneExpertTwice(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "expert": parts["expert"][:, :1].expand(-1, self.options.k)}


class NegativeWeights(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "weight": parts["weight"] - 1}


class NotFinite(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "weight": parts["weight"] / 0}


class WorstFirst(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "expert": parts["expert"].flip(1), "weight": parts["weight"].flip(1)}


class LogitsForProbs(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "probs": parts["logits"]}


class SumsToTwo(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "weight": parts["weight"] * 2}


class Balances(Good):
    """Takes the mean of the batch off, so that experts get tokens evenly: later tokens decide on earlier ones."""

    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().parts(tokens - tokens.mean(dim=0))


class Noisy(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().parts(tokens + torch.randn(tokens.shape[-1]))


class DecidesInHalf(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "weight": parts["weight"].to(tokens.dtype)}


class FailsInHalf(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "logits": tokens.float() @ self.weight.T}


class WeightWithoutUse(Good):
    def __init__(self, options: GoodOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        self.idle = nn.Parameter(torch.zeros(dim))


class CutsTheWeights(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = super().parts(tokens)
        return {**parts, "weight": parts["weight"].detach()}


class SaysThatItCuts(CutsTheWeights):
    """As it should be."""

    @classmethod
    def learns_from_answers(cls, options: GoodOptions) -> bool:
        return False


class KeepsANumberOfItsOwn(Good):
    made: ClassVar[int] = 0

    def __init__(self, options: GoodOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=num_experts)
        type(self).made += 1
        self.factor = type(self).made

    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().parts(tokens * self.factor)


class FourExpertsOnly(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        found = super().parts(tokens)
        return {**found, "logits": found["logits"].reshape(-1, 4)}


class FourExpertsWhenBuilt(Good):
    def __init__(self, options: GoodOptions, *, dim: int, num_experts: int):
        super().__init__(options, dim=dim, num_experts=4)


class WritesIntoItsInputs(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().parts(tokens.mul_(2))


class MakesAWeightOnTheCPU(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        found = super().parts(tokens)
        return {**found, "weight": torch.full(found["weight"].shape, 1 / self.options.k)}


class AddsATensorOnTheCPU(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().parts(tokens + torch.zeros(tokens.shape[1], dtype=tokens.dtype))


class DividesByTheDeviation(Good):
    def parts(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().parts(tokens / tokens.std(dim=1, keepdim=True))


class FailsForSomeK(Good):
    class Options(GoodOptions):
        k: int = Field(default=2, description="Experts per token.")

    @classmethod
    def weights_sum_to_one(cls, options: GoodOptions) -> Any:
        return 1 / options.k > 0


BROKEN = {
    FourExpertsOnly: r"fails for (2|3|5|8|16) experts, which check accepts.*self\.num_experts",
    FourExpertsWhenBuilt: r"fails for (2|3|5|8|16) experts, which check accepts.*self\.num_experts",
    WritesIntoItsInputs: "changes the tokens in place in eval mode",
    MakesAWeightOnTheCPU: "returned weight on the CPU although weights and inputs are on a GPU",
    AddsATensorOnTheCPU: "fails when weights and inputs are on a GPU: torch operation 'add'",
    DividesByTheDeviation: "NaN, Inf or huge values as weight for inputs that are 0 everywhere",
    FailsForSomeK: "check raises ZeroDivisionError for the option k = 0",
    Undescribed: "no description for bare",
    CountsInFractions: "experts_per_token is 2.0; expected a whole number",
    SaysPerhaps: "weights_sum_to_one is 'perhaps'; expected True or False",
    TakesAnyNumber: "check takes 1 experts, but each token needs 2",
    RefusesWithoutNumbers: "refuses 1 experts by 'too few'; say the number",
    ReadsValuesWhenBuilt: 'cannot be built under torch.device\\("meta"\\)',
    ReturnsATuple: "returned tuple; expected Routing",
    OneChoiceTooFew: r"expert of shape \(24, 1\) for 24 tokens; expected \(24, 2\)",
    ShortIndices: "experts as torch.int32; expected torch.int64",
    CountsFromOne: "experts from 1 to 4; there are 0 to 3",
    OneExpertTwice: "one expert twice for a token",
    NegativeWeights: "weights from -",
    NotFinite: "expected finite ones from 0",
    WorstFirst: "do not come best first",
    LogitsForProbs: "gives probs from -",
    SumsToTwo: "says that weights sum to one; they are off by 1",
    Balances: "a token's experts depend on the other tokens",
    Noisy: "two outputs for the same input",
    DecidesInHalf: "in torch.bfloat16 gives weight as torch.bfloat16",
    FailsInHalf: "in torch.bfloat16 fails",
    WeightWithoutUse: "no gradient reaches idle",
    CutsTheWeights: "its weights carry no gradient; learns_from_answers must say False",
    KeepsANumberOfItsOwn: "other values after its state dict went through a new instance",
}


@pytest.mark.parametrize("good", [Good, SaysThatItCuts], ids=lambda good: good.__name__)
def test_a_good_router_passes_and_is_returned(good: type[Good]):
    router = check_router(good, GoodOptions())

    assert isinstance(router, good)
    assert not router.training


@pytest.mark.parametrize("options", [{"k": 1}, {"k": 1, "renormalize": False}, {"k": 3}, {"renormalize": False}])
def test_the_cores_router_passes(options: dict[str, Any]):
    check_router(TopKRouter, TopKOptions(**options))


@pytest.mark.parametrize(("k", "experts"), [(1, 4), (2, 4), (5, 10)])
def test_there_are_experts_enough(k: int, experts: int):
    assert check_router(Good, GoodOptions(k=k)).num_experts == experts
    assert check_router(Good, GoodOptions(k=k), num_experts=7).num_experts == 7


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_router_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_router(broken, broken.Options())

    assert broken.__name__ in str(caught.value)
