"""``match`` of ``[fusion]``: a fusion of another one's size."""

from collections.abc import Callable
from typing import Any

import pytest

from polyvex.ablation.axes import apply
from polyvex.assemble import build, make_config
from polyvex.errors import RecipeError
from polyvex.hooks.manager import load_registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.recipe.matching import sized_fusion
from polyvex.recipe.read import parse_recipe

Make = Callable[..., Recipe]

QFORMER = {"use": "qformer", "queries": 4, "hidden": 16, "layers": 2, "heads": 2, "ffn": 32, "width": 16}


def mlp(**changes: Any) -> dict[str, Any]:
    return {"use": "mlp", "match_to": QFORMER, **changes}


def connector(model: PolyvexForConditionalGeneration) -> int:
    return sum(parameter.numel() for parameter in model.fusion.parameters())


def test_the_model_is_as_large_as_the_other(tiny_recipe: Make) -> None:
    plain = build(tiny_recipe(fusion=QFORMER, positions={"use": "sequential"})).model
    matched = build(tiny_recipe(fusion=mlp(match="parameters"))).model
    assert abs(connector(matched) - connector(plain)) < 0.02 * connector(plain)
    assert matched.config.fusion["hidden"] == matched.fusion.options.hidden
    assert matched.config.fusion["match"] == "none"


def test_tokens_and_parameters_at_once(tiny_recipe: Make) -> None:
    given = {key: value for key, value in QFORMER.items() if key not in ("queries", "ffn")}
    other = {"use": "mlp", "patches_per_token": 2, "hidden": 100}
    fusion = {**given, "match": "both", "match_to": other}
    plain = build(tiny_recipe(fusion=other)).model
    matched = build(tiny_recipe(fusion=fusion, positions={"use": "sequential"})).model
    assert matched.layouts.tokens() == plain.layouts.tokens()
    assert abs(connector(matched) - connector(plain)) < 0.02 * connector(plain)


def test_plan_tells_what_was_set_and_counts_what_is_built(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(fusion=mlp(match="parameters"))
    plan = make_plan(recipe, load_registries())
    model = build(recipe).model
    assert plan.fusion_parameters == connector(model)
    (note,) = [note for note in plan.notes if note.startswith("fusion: ")]
    assert note.startswith(f"fusion: to match qformer, hidden = {model.fusion.options.hidden} gives ")
    assert f"fusion:  mlp, {connector(model) / 1e3:.2f} k parameters" in str(plan)


def test_a_dumped_recipe_reads_the_same(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(fusion=mlp(match="parameters"))
    dumped = recipe.dump()
    again = tiny_recipe(fusion=dumped["fusion"])
    assert again.dump() == recipe.dump()
    assert dumped["fusion"]["match_to"]["use"] == "qformer"


def test_values_per_encoder_of_the_other_fusion_go_with_their_encoder(tiny_recipe: Make) -> None:
    other = {"use": "mlp", "patches_per_token": [1, 2]}
    recipe = tiny_recipe(
        fusion={**QFORMER, "match": "tokens", "match_to": other, "queries": 32},
        positions={"use": "sequential"},
        order=["color-grid", "patchify"],
    )
    assert recipe.fusion.match_to.patches_per_token == [2, 1]


def test_parameters_are_left_alone_where_the_width_is_not_known(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(fusion=mlp(match="both", match_to={**QFORMER, "queries": 3}))
    table, done = sized_fusion(recipe, load_registries())
    assert [match.what for match in done] == ["tokens"]
    assert table.hidden is None


@pytest.mark.parametrize(
    ("fusion", "problem"),
    [
        ({"use": "mlp", "match": "tokens"}, "match has no effect without match_to"),
        (mlp(), "match_to has no effect without match"),
        (mlp(match="parameters", hidden=12), "hidden = 12 has no effect, since match = 'parameters' sets it"),
        (mlp(match="tokens", match_to={**QFORMER, "hidden": 15}), "match_to: "),
        (mlp(match="tokens", match_to={**QFORMER, "queries": 4}), "match = 'tokens' is not to be had"),
        (mlp(match="tokens", match_to={"use": "qformre"}), "qformre"),
    ],
)
def test_what_cannot_be_matched_is_told(fusion: dict[str, Any], problem: str, tiny_recipe: Make) -> None:
    with pytest.raises(RecipeError) as told:
        tiny_recipe(fusion=fusion)
    assert problem in str(told.value)


def test_what_depends_on_the_width_is_a_problem_of_the_plan(tiny_recipe: Make) -> None:
    fusion = {key: value for key, value in QFORMER.items() if key != "ffn"}
    fusion |= {"match": "parameters", "match_to": {"use": "mlp", "hidden": 1}}
    recipe = tiny_recipe(fusion=fusion, positions={"use": "sequential"})
    registries = load_registries()
    (problem,) = make_plan(recipe, registries).problems
    assert problem.startswith("[fusion]: match = 'parameters' is not to be had: ffn = 1 gives ")
    config = registries.language_models[recipe.lm.use](recipe.lm).config()
    with pytest.raises(RecipeError, match=r"is not to be had"):
        make_config(recipe, registries, text_config=config, image_token_id=-1)


def test_an_axis_over_fusions_compares_them_at_one_size(tiny_recipe: Make) -> None:
    base = tiny_recipe(
        fusion=mlp(match="parameters", match_to={**QFORMER, "hidden": 8, "heads": 1}), positions={"use": "sequential"}
    )
    sizes = {}
    for name in ("mlp", "soft_moe"):
        recipe = parse_recipe(apply(base.dump(), {"fusion": name}, type(base)).data)
        sizes[name] = make_plan(recipe, load_registries()).fusion_parameters
    assert max(sizes.values()) < 1.05 * min(sizes.values())
