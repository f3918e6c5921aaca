"""Small language models with experts, far from zero everywhere, so that a wrong place shows in the logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, MistralConfig, PreTrainedModel, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from polyvex.assemble import build
from polyvex.hooks.manager import Registries
from polyvex.moe.options import MoEOptions
from polyvex.moe.upcycle import install_experts
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory

Mixture = Callable[..., Any]
Finished = Callable[..., Path]

CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen3": Qwen3Config}
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def enliven(module: nn.Module) -> None:
    """Values far from zero and from each other in every weight, those of norms too."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            around = 1.0 if "norm" in name else 0.0
            parameter.copy_(around + torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.fixture(scope="session")
def mixture(registries: Registries) -> Mixture:
    """A function that makes a language model with experts that differ.

    ``mixture("qwen3", moe={"layers": [1]}, router={"use": "switch"}, head_dim=16)``: tables as in recipes, the rest
    goes into the configuration. ``dense=True`` puts no experts in.
    """

    def make(
        kind: str = "llama",
        moe: dict[str, Any] | None = None,
        router: dict[str, Any] | None = None,
        *,
        dense: bool = False,
        **config: Any,
    ) -> PreTrainedModel:
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(CONFIGS[kind](**{**SIZES, **config}))
        if not dense:
            table = {"use": "top_k", **(router or {})}
            routes = registries.routers[table.pop("use")]
            options = MoEOptions(**{"layers": "dense", "num_experts": 4, **(moe or {})})
            install_experts(lm, options, (routes, routes.Options(**table)), copy=True, context=None)
        enliven(lm)
        return lm.eval()

    return make


@pytest.fixture
def finished(tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path) -> Finished:
    """A function that writes what looks like a finished run of the tiny recipe with changes; its experts differ.

    ``change`` is called with the model and its processor before they are stored.
    """

    def make(*overrides: str, change: Callable[[Any, Any], object] | None = None, **tables: Any) -> Path:
        recipe, path = tiny_recipe(*overrides, **tables), tmp_path / "run"
        RunDirectory(path).begin(recipe)
        built = build(recipe, registries=registries)
        if recipe.moe is not None:
            router = recipe.moe.router
            route = (registries.routers[router.use], router)
            install_experts(built.model.lm, recipe.moe, route, copy=True, context=built.model.context)
            built.model.config.moe = recipe.moe.model_dump()
        enliven(built.model.lm)
        if change is not None:
            change(built.model, built.processor)
        built.model.save_pretrained(path)
        built.processor.save_pretrained(path)
        RunDirectory(path).finish()
        return path

    return make
