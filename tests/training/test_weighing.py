"""What encoders weigh in a model, by kind of question."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from polyvex.assemble import Built, build
from polyvex.cache import TokenCache
from polyvex.cache.reader import ImageReader
from polyvex.data import Sample
from polyvex.fusion.weights import record_encoder_weights
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.training.weighing import encoder_weights

ENCODERS = ["patchify", "color-grid"]
Found = dict[str, dict[str, dict[str, float]]]


@pytest.fixture
def make(tiny_recipe: Callable[..., Recipe], registries: Registries) -> Callable[..., Built]:
    def made(*changes: str) -> Built:
        recipe = tiny_recipe("fusion.grid=[2, 2]", "positions.use=sequential", *changes)
        return build(recipe, registries=registries)

    return made


def found(built: Built, samples: list[Sample], cache: TokenCache, **options: Any) -> Found:
    return encoder_weights(
        built.model.eval(), built.processor, samples, ImageReader.of(cache, built.processor), **options
    )


def test_a_gate_at_its_start_weighs_all_alike(
    make: Callable[..., Built], samples: list[Sample], cache: TokenCache
) -> None:
    for gate in ("token", "sample"):
        shares = found(make("fusion.use=gated", f"fusion.gate={gate}"), samples, cache)
        assert list(shares) == ["all", "color", "side"]
        assert all(one == {"weight": 0.5, "used": 1.0} for encoders in shares.values() for one in encoders.values())
        assert all(list(encoders) == ENCODERS for encoders in shares.values())


def test_a_gate_that_leans_is_seen(make: Callable[..., Built], samples: list[Sample], cache: TokenCache) -> None:
    built = make("fusion.use=gated")
    with torch.no_grad():
        built.model.fusion.gate.bias.copy_(torch.tensor([0.0, 3.0]).log1p())  # 1 : 4
    shares = found(built, samples, cache)["all"]
    assert shares["patchify"]["weight"] == pytest.approx(0.2)
    assert shares["color-grid"]["weight"] == pytest.approx(0.8)


@pytest.mark.parametrize("k", [1, 2])
def test_questions_choose_by_kind(k: int, make: Callable[..., Built], samples: list[Sample], cache: TokenCache) -> None:
    """The weights are those that the model has when it is asked, with no answer yet."""
    built = make("fusion.use=routed", f"fusion.k={k}")
    torch.manual_seed(1)
    torch.nn.init.normal_(built.model.fusion.gate[1].weight, std=0.3)
    shares = found(built, samples, cache)
    for kind in ("color", "side"):
        (sample, *_) = [sample for sample in samples if sample.kind == kind]  # each kind has one question only
        read = ImageReader.of(cache, built.processor)
        ids = torch.tensor([built.processor.prompts.question(sample.question, images=read.count(sample.images))])
        with record_encoder_weights(built.model.fusion) as weights, torch.inference_mode():
            built.model(input_ids=ids, attention_mask=torch.ones_like(ids), **read(sample.images))
        (row,) = weights[0].tolist()
        assert [shares[kind][name]["weight"] for name in ENCODERS] == pytest.approx(row, abs=1e-6)
        assert [shares[kind][name]["used"] for name in ENCODERS] == [float(one > 0) for one in row]
    both = [(shares["color"][name]["weight"] + shares["side"][name]["weight"]) / 2 for name in ENCODERS]
    assert [shares["all"][name]["weight"] for name in ENCODERS] == pytest.approx(both, abs=1e-6)


def test_slots_weigh_encoders_by_what_they_take_of_each(
    tiny_recipe: Callable[..., Recipe], registries: Registries, samples: list[Sample], cache: TokenCache
) -> None:
    recipe = tiny_recipe("fusion.use=soft_moe", "positions.use=sequential")
    built = build(recipe, registries=registries)
    torch.nn.init.zeros_(built.model.fusion.scale)  # every slot takes the same of each of 4 and 8 tokens
    shares = found(built, samples, cache)["all"]
    assert shares["patchify"]["weight"] == pytest.approx(4 / 12)
    assert shares["color-grid"]["weight"] == pytest.approx(8 / 12)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_make_no_difference(
    batch_size: int, make: Callable[..., Built], samples: list[Sample], cache: TokenCache
) -> None:
    built = make("fusion.use=gated")
    torch.nn.init.normal_(built.model.fusion.gate.weight)
    expected, other = found(built, samples, cache), found(built, samples, cache, batch_size=batch_size)
    for kind, encoders in expected.items():
        for name, one in encoders.items():
            assert other[kind][name] == pytest.approx(one)


def test_other_fusions_weigh_nothing(
    tiny_recipe: Callable[..., Recipe], registries: Registries, samples: list[Sample], cache: TokenCache
) -> None:
    assert found(build(tiny_recipe(), registries=registries), samples, cache) == {}


def test_without_images_there_is_nothing_to_weigh(
    make: Callable[..., Built], samples: list[Sample], cache: TokenCache
) -> None:
    assert found(make("fusion.use=gated"), samples[-1:], cache) == {}
