"""Small models with real weights: large enough ones that a wrong mask or position shows in the logits."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from polyvex.assemble import Built, build
from polyvex.hooks.manager import Registries
from polyvex.moe.upcycle import install_experts
from polyvex.recipe import Recipe

Make = Callable[..., Built]


def enliven(module: torch.nn.Module) -> None:
    """Give every matrix but the encoders' values far from zero and from each other, experts and columns too."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.startswith("encoders.") and "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.fixture(scope="session")
def make_built(tiny_recipe: Callable[..., Recipe], registries: Registries) -> Make:
    """A function that builds the tiny recipe with changes: fresh each time, enlivened, in evaluation mode.

    ``experts=True`` makes it a mixture of experts whose experts differ.
    """

    def make(*overrides: str, experts: bool = False, **tables: Any) -> Built:
        recipe = tiny_recipe(*overrides, **tables)
        built = build(recipe, registries=registries)
        if experts:
            assert recipe.moe is not None
            kind = registries.routers[recipe.moe.router.use]
            install_experts(
                built.model.lm, recipe.moe, (kind, recipe.moe.router), copy=True, context=built.model.context
            )
            built.model.config.moe = recipe.moe.model_dump()
        enliven(built.model)
        built.model.eval()
        return built

    return make


@pytest.fixture(scope="session")
def shared_built(make_built: Make) -> Make:
    """As ``make_built``, but the same choice gives the same model: tests must not change it."""
    return cache(make_built)
