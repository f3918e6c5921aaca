"""The class that checks a whole recipe, derived from what is installed."""

from collections.abc import Callable
from typing import Any

import pytest

from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import Recipe
from polyvex.recipe.model import encoder_names, json_schema


@pytest.mark.parametrize(
    ("encoders", "names"),
    [
        ([{"use": "patchify"}, {"use": "color-grid"}], ["patchify", "color-grid"]),
        ([{"use": "patchify"}, {"use": "patchify"}, {"use": "patchify"}], ["patchify", "patchify-2", "patchify-3"]),
        ([{"use": "patchify", "name": "a"}, {"use": "patchify"}], ["a", "patchify"]),
        ([{"use": "patchify", "name": "a"}, {"use": "color-grid", "name": "a"}], ["a", "a-2"]),
    ],
)
def test_encoder_names(encoders: list[dict[str, Any]], names: list[str], check: Callable[..., Recipe]) -> None:
    assert encoder_names(check(encoders=encoders)) == names


def test_schema_covers_installed_components(known: Registries) -> None:
    schema = json_schema(known)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) == {"name", "encoders", "fusion", "positions", "lm", "data", "stages"}
    uses = {
        definition["properties"]["use"]["const"]
        for definition in schema["$defs"].values()
        if "use" in definition.get("properties", {})
    }
    kinds = ("encoders", "reducers", "fusions", "position_schemes", "language_models", "datasets", "routers")
    assert uses == {name for kind in kinds for name in getattr(known, kind).names()}
    assert {"patchify", "mlp", "share_row", "small-llama", "jsonl", "top_k"} <= uses


def test_schema_refuses_unknown_keys_as_the_checker_does(known: Registries) -> None:
    assert json_schema(known)["additionalProperties"] is False


def test_schema_can_be_made_without_any_plugin() -> None:
    assert json_schema(load_registries(third_party=False))["title"]


def test_every_key_of_a_recipe_is_described(known: Registries) -> None:
    schema = json_schema(known)
    described = [schema["properties"], *(one.get("properties", {}) for one in schema["$defs"].values())]
    bare = [
        name
        for properties in described
        for name, entry in properties.items()
        if not entry.get("description") and "$ref" not in entry
    ]
    assert bare == []


def test_schema_and_checker_take_false_for_tables_that_are_left_out(
    known: Registries, check: Callable[..., Recipe]
) -> None:
    table = json_schema(known)["$defs"]["EncoderPatchify"]["properties"]
    for key in ("tiling", "lora"):
        assert {"const": False, "type": "boolean"} in table[key]["anyOf"]
        assert getattr(check(encoders=[{"use": "patchify", key: False}]).encoders[0], key) is None
