"""What routers are in the families' words."""

from typing import Any

import pytest

from polyvex.errors import ExportError
from polyvex.export.families import FAMILIES, Gate, dense_layers, expert_layers, family_named, gate_of
from polyvex.hooks.manager import Registries
from polyvex.moe.routers import Router, TopKRouter

from .conftest import Mixture


def router(registries: Registries, use: str, **options: Any) -> Router:
    kind = registries.routers[use]
    return kind(kind.Options(**options), dim=8, num_experts=4)


@pytest.mark.parametrize(
    ("use", "options", "gate"),
    [
        ("top_k", {"k": 3}, Gate(k=3, sums_to_one=True)),
        ("top_k", {"k": 3, "renormalize": False}, Gate(k=3, sums_to_one=False)),
        ("top_k", {"k": 4, "renormalize": False}, Gate(k=4, sums_to_one=True)),  # all probabilities sum to one
        ("top_k", {"k": 2, "softmax": "after"}, Gate(k=2, sums_to_one=True)),
        ("top_k", {"k": 2, "capacity": 1.0}, Gate(k=2, sums_to_one=True)),
        ("noisy_top_k", {"k": 2}, Gate(k=2, sums_to_one=True)),
        ("switch", {"jitter": 0.1}, Gate(k=1, sums_to_one=False)),
    ],
)
def test_a_router_in_the_families_words(use: str, options: dict[str, Any], gate: Gate, registries: Registries) -> None:
    assert gate_of(router(registries, use, **options)) == gate


@pytest.mark.parametrize("use", ["expert_choice", "soft"])
def test_other_ways_to_route_are_refused(use: str, registries: Registries) -> None:
    with pytest.raises(ValueError, match="Router routes in another way than the families"):
        gate_of(router(registries, use))


def test_a_router_of_a_plugin_is_refused_even_if_it_is_nearly_ours(registries: Registries) -> None:
    class Mine(TopKRouter):
        pass

    with pytest.raises(ValueError, match="Mine routes in another way"):
        gate_of(Mine(TopKRouter.Options(), dim=8, num_experts=4))


def test_layers_with_and_without_experts(mixture: Mixture) -> None:
    lm = mixture("llama", moe={"layers": [1]})
    assert expert_layers(lm) == {1: lm.model.layers[1].mlp}
    assert dense_layers(lm) == {0: lm.model.layers[0].mlp, 2: lm.model.layers[2].mlp}


def test_a_family_by_its_name() -> None:
    assert family_named("mixtral") is FAMILIES["mixtral"]
    with pytest.raises(ExportError) as caught:
        family_named("mixtrel")
    assert caught.value.reasons == ["unknown family 'mixtrel', did you mean 'mixtral'? Known: mixtral, qwen3_moe"]
