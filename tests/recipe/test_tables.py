"""Tables stored in a model's configuration."""

import pytest

from polyvex.errors import PluginError, RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe.model import EncoderKeys
from polyvex.recipe.tables import read_encoder, read_table


def test_a_stored_table_reads_back(known: Registries) -> None:
    raw = {"use": "patchify", "name": "a", "image_size": 32, "patch_size": 16, "dim": 8, "seed": 0}
    raw |= {
        "tiling": None,
        "precision": "float32",
        "tune": "lora",
        "lora": {"rank": 2, "alpha": 4.0, "targets": []},
        "reduce": None,
        "positions": None,
    }
    assert read_table(known.encoders, raw, keys=EncoderKeys).model_dump() == raw


def test_a_missing_plugin_is_named_with_the_way_to_get_it(known: Registries) -> None:
    with pytest.raises(PluginError) as caught:
        read_table(known.encoders, {"use": "sam"}, origin="polyvex-sam==1.2")
    assert str(caught.value) == (
        "unknown encoder 'sam'. Known: color-grid, patchify, random-features. "
        "It came from the distribution polyvex-sam==1.2: pip install 'polyvex-sam==1.2'."
    )


def test_options_that_no_longer_fit_are_told(known: Registries) -> None:
    with pytest.raises(RecipeError) as caught:
        read_table(known.fusions, {"use": "mlp", "depth": "two", "heads": 1})
    assert caught.value.source == "stored fusion 'mlp'"
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == ["depth", "heads"]


@pytest.mark.parametrize(("key", "kind"), [("reduce", "reducer"), ("positions", "position scheme")])
def test_a_missing_plugin_inside_an_encoders_table_is_named(known: Registries, key: str, kind: str) -> None:
    raw = {"use": "patchify", "name": "a", key: {"use": "mine"}}
    with pytest.raises(PluginError) as caught:
        read_encoder(known, raw, plugins={f"{kind} mine": "polyvex-mine==1.2"})
    assert caught.value.code == "plugin-missing"
    assert f"unknown {kind} 'mine'" in str(caught.value)
    assert "pip install 'polyvex-mine==1.2'" in str(caught.value)
