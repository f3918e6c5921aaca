"""``--set a.b=c``."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.model import recipe_model
from polyvex.recipe.overrides import apply_changes, describe_dropped, read_overrides

RAW: dict[str, Any] = {
    "name": "a",
    "seed": 0,
    "encoders": [{"use": "dinov2-s"}, {"use": "dinov2-s", "name": "second"}],
    "lm": {"use": "small-llama"},
}


def change(*overrides: str) -> dict[str, Any]:
    data, problems = apply(RAW, overrides)
    assert problems == []
    return data


def apply(raw: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    changes, problems = read_overrides(overrides)
    changed = apply_changes(raw, changes)
    return changed.data, problems + changed.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('{ use = "x" }', {"use": "x"}),
        ('"3"', "3"),
        ("share_row", "share_row"),
        ("a path/with spaces", "a path/with spaces"),
        ("yes", "yes"),
        ("", ""),
        ("{image} {question}", "{image} {question}"),
        ("a=b", "a=b"),
        ("[a, b-2]", ["a", "b-2"]),
        ("[SEP]", "[SEP]"),
        ("[INST] {image}, {question} [/INST]", "[INST] {image}, {question} [/INST]"),
        ("{use=stride, step=0.5}", {"use": "stride", "step": 0.5}),
        ("3\nseed = 4", "3\nseed = 4"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_values_are_toml_or_plain_text(text: str, value: Any) -> None:
    assert change(f"name={text}")["name"] == value


def test_spaces_around_the_sign_do_not_count() -> None:
    assert change(" seed = 4 ")["seed"] == 4


def test_tables_are_made_on_the_way() -> None:
    assert change("moe.router.k=1")["moe"] == {"router": {"k": 1}}


@pytest.mark.parametrize(("step", "index"), [("0", 0), ("1", 1), ("dinov2-s", 0), ("second", 1)])
def test_list_items_go_by_number_name_or_use(step: str, index: int) -> None:
    assert change(f"encoders.{step}.image_size=98")["encoders"][index]["image_size"] == 98


def test_a_name_goes_before_a_use() -> None:
    raw = {"encoders": [{"use": "a"}, {"use": "b", "name": "a"}]}
    assert apply(raw, ["encoders.a.x=1"])[0]["encoders"][1] == {"use": "b", "name": "a", "x": 1}


def test_a_whole_item_can_be_replaced() -> None:
    assert change('encoders.0={ use = "x" }')["encoders"][0] == {"use": "x"}


def test_later_changes_win() -> None:
    assert change("seed=1", "seed=2")["seed"] == 2


def test_the_original_stays_as_it_was() -> None:
    change("encoders.0.image_size=98", "lm.use=x")
    assert RAW["encoders"][0] == {"use": "dinov2-s"}
    assert RAW["lm"] == {"use": "small-llama"}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed", "--set seed: expected a.b=c"),
        ("=3", "--set =3: expected a.b=c"),
        (" = 3", "--set  = 3: expected a.b=c"),
        ("name.a=3", "--set name.a=3: 'name' is 'a', not a table"),
        ("lm.use.a=3", "--set lm.use.a=3: 'lm.use' is 'small-llama', not a table"),
        (
            "encoders.7.x=1",
            "--set encoders.7.x=1: 'encoders' has no item '7'; it has dinov2-s, second, or numbers from 0",
        ),
        (
            "encoders.sam.x=1",
            "--set encoders.sam.x=1: 'encoders' has no item 'sam'; it has dinov2-s, second, or numbers from 0",
        ),
    ],
)
def test_what_cannot_be_changed_is_a_problem(override: str, problem: str) -> None:
    assert apply(RAW, [override])[1] == [problem]


def test_changes_are_checked_like_the_file(problems_of: Callable[..., list[str]]) -> None:
    assert problems_of("stages.align.steps=many") == ["[[stages]] #1 (align): steps is 'many', expected int"]


def test_changes_reach_the_recipe(check: Callable[..., Recipe]) -> None:
    recipe = check("stages.align.steps=7", "encoders.color-grid.cols=2", "positions.use=share_all")
    assert (recipe.stages[0].steps, recipe.encoders[1].cols, recipe.positions.use) == (7, 2, "share_all")


# A composed recipe has every option of its components written out.
WRITTEN: dict[str, Any] = {
    "encoders": [{"use": "patchify", "name": "small", "dim": 8}, {"use": "color-grid", "rows": 4, "cols": 2}],
    "fusion": {"use": "mlp", "patches_per_token": 1, "depth": 3, "hidden": 64, "separator": "learned"},
    "positions": {"use": "stride", "base": "common", "step": 0.5},
    "lm": {"use": "small-llama", "layers": 3, "attention": "eager"},
    "moe": {"num_experts": 4, "router": {"use": "top_k", "k": 2}},
    "data": {"use": "jsonl", "folder": "pictures", "train_limit": 7},
    "stages": [{"name": "align", "steps": 3}, {"name": "experts", "steps": 3, "upcycle": True}],
}


class Switch:
    """What changes make of the recipe above."""

    def __init__(self, registries: Registries, *overrides: str):
        changes, problems = read_overrides(overrides)
        changed = apply_changes(WRITTEN, changes, registries.derive(recipe_model))
        assert problems + changed.problems == []
        self.data, self.reports = changed.data, describe_dropped(changed.dropped)


@pytest.mark.parametrize("spelling", ["fusion.use=gated", "fusion=gated"])
def test_another_use_keeps_what_fits_and_reports_the_rest_once(spelling: str, registries: Registries) -> None:
    switch = Switch(registries, spelling)
    assert switch.data["fusion"] == {"use": "gated", "depth": 3, "hidden": 64, "separator": "learned"}
    assert switch.reports == [f"--set {spelling}: dropped patches_per_token = 1, which 'gated' does not accept"]


def test_every_table_that_names_a_component_can_switch(registries: Registries) -> None:
    data = Switch(
        registries,
        "encoders.small=color-grid",
        "encoders.color-grid.use=patchify",
        "positions=share_row",
        "lm.use=pretrained",
        "moe.router=expert_choice",
        "encoders.0.reduce=average_pool",
        "encoders.0.positions.use=share_all",
        "fusion.match_to=qformer",
    ).data
    assert data["encoders"] == [
        {"use": "color-grid", "name": "small", "reduce": {"use": "average_pool"}, "positions": {"use": "share_all"}},
        {"use": "patchify"},
    ]
    assert data["positions"] == {"use": "share_row", "base": "common"}
    assert data["lm"] == {"use": "pretrained", "attention": "eager"}
    assert data["moe"] == {"num_experts": 4, "router": {"use": "expert_choice"}}
    assert data["fusion"]["match_to"] == {"use": "qformer"}


def test_the_order_of_changes_does_not_matter(registries: Registries) -> None:
    changes = ["fusion.queries=32", "fusion.use=qformer"]
    first, second = Switch(registries, *changes), Switch(registries, *reversed(changes))
    assert first.data == second.data
    assert first.data["fusion"]["queries"] == 32
    assert len(first.reports) == len(second.reports) == 1


def test_a_value_that_the_new_component_refuses_is_dropped(registries: Registries) -> None:
    # mlp takes grid-like lists where qformer's hidden is one number.
    data = {**WRITTEN, "fusion": {"use": "mlp", "hidden": "wide"}}
    changes, _ = read_overrides(["fusion=qformer"])
    changed = apply_changes(data, changes, registries.derive(recipe_model))
    assert changed.data["fusion"] == {"use": "qformer"}
    assert [one.key for one in changed.dropped] == ["hidden"]


def test_an_unknown_use_is_left_to_the_checker(problems_of: Callable[..., list[str]]) -> None:
    (problem,) = problems_of("fusion=gatd")
    assert problem.startswith("[fusion]: unknown fusion 'gatd'. Did you mean 'gated'?")


def test_the_same_use_changes_nothing(registries: Registries) -> None:
    switch = Switch(registries, "fusion=mlp", "positions.use=stride")
    assert switch.data == WRITTEN
    assert switch.reports == []


def test_false_takes_out_tables_and_items(registries: Registries, check: Callable[..., Recipe]) -> None:
    data = Switch(registries, "stages.experts=false", "encoders.0=false", "encoders.color-grid.rows=8").data
    assert [stage["name"] for stage in data["stages"]] == ["align"]
    assert data["encoders"] == [{"use": "color-grid", "rows": 8, "cols": 2}]
    recipe = check("moe=false", "stages.experts=false", "start=false")
    assert recipe.moe is None
    assert recipe.start is None


def test_a_table_that_was_switched_off_is_made_anew(check: Callable[..., Recipe]) -> None:
    off = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, "tiling": False}
    recipe = check("encoders.0.tiling.base=false", encoders=[off])
    assert recipe.encoders[0].tiling.base is False


@pytest.mark.parametrize("order", ["reversed", "color-grid+patchify", "[color-grid, patchify]"])
def test_an_order_is_written_as_for_an_axis(order: str, check: Callable[..., Recipe]) -> None:
    assert [table.use for table in check(f"order={order}").encoders] == ["color-grid", "patchify"]


def test_all_orders_are_for_an_axis(problems_of: Callable[..., list[str]]) -> None:
    (problem,) = problems_of("order=all")
    assert "only an axis" in problem


def test_dropped_keys_are_logged(check: Callable[..., Recipe], caplog: pytest.LogCaptureFixture) -> None:
    check("fusion.use=gated", "positions=share_all", "fusion.grid=2", fusion={"use": "mlp", "patches_per_token": 2})
    assert caplog.messages == [
        "--set fusion.use=gated: dropped patches_per_token = 2, which 'gated' does not accept",
    ]
