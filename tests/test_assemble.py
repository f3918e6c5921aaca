"""From a recipe to a model and its processor."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from polyvex.assemble import build, build_model, encoder_tables, make_processor, plugin_origins
from polyvex.errors import PluginError, RecipeError, WeightsError
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Plugin
from polyvex.model.components import read_components
from polyvex.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


def test_everything_a_recipe_names_is_built(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    built = build(tiny_recipe(), registries=registries)
    assert list(built.model.encoders) == ["patchify", "color-grid"]
    assert built.model.config.fusion["use"] == "mlp"
    assert built.model.config.positions["use"] == "share_row"
    assert built.processor.visual_tokens == 12
    assert {name: report.missing for name, report in built.weights.items()} == {"patchify": [], "color-grid": []}


def test_the_model_is_dense_at_first(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    model = build(tiny_recipe(), registries=registries).model
    assert model.config.moe is None
    assert not [name for name in model.state_dict() if "experts" in name]


def test_encoders_can_be_left_out(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    recipe = tiny_recipe()
    processor = make_processor(recipe, registries, ["some text"])
    model, reports = build_model(recipe, processor, registries, encoders=False)
    assert (len(model.encoders), reports) == (0, {})
    assert model.encoder_names == ["patchify", "color-grid"]


def test_the_rest_is_the_same_without_encoders(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    recipe = tiny_recipe()
    processor = make_processor(recipe, registries, ["some text"])
    left, _ = build_model(recipe, processor, registries, encoders=False)
    right, _ = build_model(recipe, processor, registries, encoders=True)
    assert all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def test_texts_given_go_before_the_data_set(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    recipe = tiny_recipe(data={"use": "jsonl", "folder": "/no/such/folder"})
    processor = build(recipe, registries=registries, texts=["zebra zebra zebra"]).processor
    assert "zebra" in processor.tokenizer.get_vocab()


def test_the_order_of_encoders_is_the_recipes(
    tiny_recipe: Callable[..., Recipe], tiny_tables: Callable[[], dict[str, Any]], registries: Registries
) -> None:
    backwards = tiny_recipe(encoders=tiny_tables()["encoders"][::-1])
    assert [table["name"] for table in encoder_tables(backwards)] == ["color-grid", "patchify"]
    assert build(backwards, registries=registries).model.layout.source.tolist() == [0] * 8 + [1] * 4


def test_plugins_are_written_as_pip_writes_them(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    assert plugin_origins(tiny_recipe(), registries)["patchify"] == "polyvex-basics==0.1.0"


def test_other_components_of_plugins_are_written_too(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    """A missing plugin of a scheme, reducer or router is named as that of an encoder is."""
    mine = Plugin(name="mine", distribution="polyvex-mine", version="1.2")
    recipe = tiny_recipe()
    known = replace(registries, position_schemes=copy.copy(registries.position_schemes))
    known.position_schemes.entries = dict(registries.position_schemes.entries)
    entry = known.position_schemes.entries[recipe.positions.use]
    known.position_schemes.entries[recipe.positions.use] = replace(entry, plugin=mine)
    built = build(recipe, registries=known)
    origins = built.model.config.plugins
    assert origins == {
        **plugin_origins(recipe, registries),
        f"position scheme {recipe.positions.use}": "polyvex-mine==1.2",
    }

    del known.position_schemes.entries[recipe.positions.use]
    with pytest.raises(PluginError, match=r"pip install 'polyvex-mine==1\.2'") as caught:
        read_components(built.model.config, known, dim=64)
    assert caught.value.code == "plugin-missing"


def test_missing_weights_stop_the_build(
    tiny_recipe: Callable[..., Recipe], registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyvex_basics import Patchify

    def fail(self: Patchify) -> None:
        raise WeightsError("no weights here")

    monkeypatch.setattr(Patchify, "load_pretrained", fail)
    with pytest.raises(WeightsError, match="no weights here"):
        build(tiny_recipe(), registries=registries)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "recipes").glob("*.toml")), ids=lambda path: path.name
)
def test_every_shipped_recipe_builds_without_its_encoders(path: Path, registries: Registries) -> None:
    from polyvex.recipe import read_recipe

    recipe = read_recipe(path, registries=registries)
    if registries.language_models[recipe.lm.use].pretrained:
        return  # its checkpoint may not be on this machine
    processor = make_processor(recipe, registries, ["some text"])
    model, _ = build_model(recipe, processor, registries, encoders=False)
    for size in ((64, 64), (48, 96)):  # height and width of an image, on which tiles depend
        assert model.layouts.tokens(size) == processor.layouts.tokens(size) > 0


def test_the_short_name_is_the_function_every_time() -> None:
    # A module of the same name would take its place as an attribute of the package after the first use.
    import polyvex

    assert polyvex.build is polyvex.build is build
    assert all(getattr(polyvex, name) is getattr(polyvex, name) for name in polyvex.__all__)


def test_images_that_fill_the_context_are_refused_before_anything_is_encoded(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    from polyvex.training.stages import train

    recipe = tiny_recipe("lm.max_positions=8")
    with pytest.raises(RecipeError, match=r"takes \d+ visual tokens, but .* context holds 8"):
        train(recipe, tmp_path / "run", registries=registries)
    assert not (tmp_path / "run").exists()
