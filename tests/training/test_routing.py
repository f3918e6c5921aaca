"""Which experts tokens go to."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from polyvex.assemble import Built, build
from polyvex.cache import TokenCache
from polyvex.cache.reader import ImageReader
from polyvex.data import Sample
from polyvex.fusion.base import Fusion, FusionOptions
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.moe.upcycle import install_experts, moe_layers
from polyvex.recipe import Recipe, parse_recipe
from polyvex.tokens import TokenShape, VisualTokens
from polyvex.training.routing import expert_load


@pytest.fixture
def sparse(tiny_recipe: Callable[..., Recipe], registries: Registries) -> Built:
    recipe = tiny_recipe("moe.layers=dense")
    built = build(recipe, registries=registries)
    assert recipe.moe is not None
    install_experts(
        built.model.lm, recipe.moe, (registries.routers["top_k"], recipe.moe.router), copy=True, context=None
    )
    return built


Load = dict[str, dict[str, list[float]]]


def load_of(built: Built, samples: list[Sample], cache: TokenCache, **options: Any) -> Load:
    reader = ImageReader.of(cache, built.processor)
    return expert_load(built.model.eval(), built.processor, samples, reader, **options)


def test_each_layer_has_shares_of_text_and_of_each_encoder(
    sparse: Built, samples: list[Sample], cache: TokenCache
) -> None:
    load = load_of(sparse, samples, cache)
    assert list(load) == ["lm.model.layers.0.mlp", "lm.model.layers.1.mlp"]
    for shares in load.values():
        assert list(shares) == ["text", "patchify", "color-grid"]
        assert all(sum(share) == pytest.approx(1.0) for share in shares.values())


class Two(Fusion):
    """Both encoders' means in each of three tokens, two runs of them."""

    summary = "two"

    def __init__(self, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.map = nn.Linear(sum(shape.dim for shape in inputs), dim)

    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        return [TokenShape(tokens=2, dim=dim), TokenShape(tokens=1, dim=dim)]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        means = torch.cat([part.values.mean(dim=1) for part in parts], dim=-1)
        return VisualTokens(values=self.map(means)[:, None].expand(-1, 3, -1), layout=self.layout)


class Plugin:
    @hookimpl
    def register_fusions(self) -> dict[str, type[Fusion]]:
        return {"two": Two}


def test_merged_tokens_are_no_single_encoders(
    tiny_tables: Callable[[], dict[str, Any]],
    samples: list[Sample],
    cache: TokenCache,
) -> None:
    known = load_registries(extra={"two": Plugin()})
    changes = ["moe.layers=dense", "fusion.use=two", "positions.use=sequential"]
    recipe = parse_recipe(tiny_tables(), overrides=changes, registries=known)
    built = build(recipe, registries=known, texts=["what?"])
    assert recipe.moe is not None
    install_experts(built.model.lm, recipe.moe, (known.routers["top_k"], recipe.moe.router), copy=True, context=None)
    for shares in load_of(built, samples, cache).values():
        assert list(shares) == ["text", "patchify+color-grid"]
        assert sum(shares["patchify+color-grid"]) == pytest.approx(1.0)


def test_shares_follow_the_router(sparse: Built, samples: list[Sample], cache: TokenCache) -> None:
    # A router that always takes experts 3 and 1: half of all assignments each.
    with torch.no_grad():
        for _, layer in moe_layers(sparse.model.lm):
            layer.router.register_forward_hook(lambda module, args, routing: routed(routing))
    load = load_of(sparse, samples, cache)
    assert all(share == pytest.approx([0, 0.5, 0, 0.5]) for shares in load.values() for share in shares.values())


def routed(routing: Any) -> Any:
    return replace(routing, expert=torch.tensor([[3, 1]]).expand(len(routing.expert), 2))


def test_what_is_not_carried_out_is_no_load(sparse: Built, samples: list[Sample], cache: TokenCache) -> None:
    # Experts 3 and 1 are chosen, and 1 is full for everybody.
    def full(_module: Any, _args: Any, routing: Any) -> Any:
        chosen = routed(routing)
        return replace(chosen, kept=torch.tensor([[True, False]]).expand(len(chosen.expert), 2))

    for _, layer in moe_layers(sparse.model.lm):
        layer.router.register_forward_hook(full)
    load = load_of(sparse, samples, cache)
    assert all(share == pytest.approx([0, 0, 0, 1]) for shares in load.values() for share in shares.values())


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_and_their_padding_do_not_count(
    batch_size: int, sparse: Built, samples: list[Sample], cache: TokenCache
) -> None:
    expected = load_of(sparse, samples, cache, batch_size=5)
    found = load_of(sparse, samples, cache, batch_size=batch_size)
    for layer, shares in expected.items():
        for source, share in shares.items():
            assert found[layer][source] == pytest.approx(share)


def test_a_dense_model_has_none(
    tiny_recipe: Callable[..., Recipe], registries: Registries, samples: list[Sample], cache: TokenCache
) -> None:
    assert load_of(build(tiny_recipe(), registries=registries), samples, cache) == {}


def test_no_samples_have_none(sparse: Built, cache: TokenCache) -> None:
    assert load_of(sparse, [], cache) == {}


def test_text_alone_leaves_encoders_at_zero(sparse: Built, samples: list[Sample], cache: TokenCache) -> None:
    for shares in load_of(sparse, samples[-1:], cache).values():
        assert sum(shares["text"]) == pytest.approx(1.0)
        assert shares["patchify"] == shares["color-grid"] == [0, 0, 0, 0]
