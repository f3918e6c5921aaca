"""From a recipe and axes to cells, and what decides a cell's id."""

from collections.abc import Callable

import pytest

from polyvex.ablation.planner import combinations, plan_cells, recipe_id
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.model import recipe_model

Make = Callable[..., Recipe]


def test_the_same_recipe_has_the_same_id_whatever_it_is_called(tiny_recipe: Make) -> None:
    assert recipe_id(tiny_recipe()) == recipe_id(tiny_recipe())
    assert recipe_id(tiny_recipe("name=other")) == recipe_id(tiny_recipe())
    assert recipe_id(tiny_recipe(ablation={"seeds": 3})) == recipe_id(tiny_recipe())
    assert len(recipe_id(tiny_recipe())) == 12


def test_a_default_that_is_written_out_changes_no_id(tiny_recipe: Make) -> None:
    assert recipe_id(tiny_recipe("fusion.depth=2")) == recipe_id(tiny_recipe())


@pytest.mark.parametrize(
    "change",
    ["seed=1", "positions.use=share_all", "stages.tune.steps=4", "encoders.0.dim=16", "moe.router.renormalize=false"],
)
def test_anything_that_changes_a_result_changes_the_id(tiny_recipe: Make, change: str) -> None:
    assert recipe_id(tiny_recipe(change)) != recipe_id(tiny_recipe())


def test_cells_have_the_recipe_of_their_values(tiny_recipe: Make, registries: Registries) -> None:
    cells = plan_cells(tiny_recipe(), registries, axes={"order": "all", "positions": ["sequential", "share_all"]})
    assert [cell.label for cell in cells] == [
        "order=patchify+color-grid, positions=sequential",
        "order=patchify+color-grid, positions=share_all",
        "order=color-grid+patchify, positions=sequential",
        "order=color-grid+patchify, positions=share_all",
    ]
    assert [[table.use for table in cell.recipe.encoders] for cell in cells][1:3] == [
        ["patchify", "color-grid"],
        ["color-grid", "patchify"],
    ]
    assert [cell.recipe.positions.use for cell in cells] == ["sequential", "share_all"] * 2
    assert len({cell.id for cell in cells}) == 4


def test_seeds_of_one_combination_are_side_by_side(tiny_recipe: Make, registries: Registries) -> None:
    cells = plan_cells(tiny_recipe("seed=5"), registries, axes={"positions": ["sequential", "share_all"]}, seeds=2)
    assert [(cell.values["positions"], cell.seed) for cell in cells] == [
        ("sequential", 5),
        ("sequential", 6),
        ("share_all", 5),
        ("share_all", 6),
    ]
    assert [cell.recipe.seed for cell in cells] == [5, 6, 5, 6]
    assert len({cell.id for cell in cells}) == 4
    assert {name: [cell.seed for cell in group] for name, group in combinations(cells).items()} == {
        "positions=sequential": [5, 6],
        "positions=share_all": [5, 6],
    }


def test_planned_again_a_cell_has_its_id_again(tiny_recipe: Make, registries: Registries) -> None:
    first = plan_cells(tiny_recipe(), registries, axes={"positions": ["sequential", "share_all"]})
    other = plan_cells(tiny_recipe("name=x"), registries, axes={"positions": ["share_all", "share_row", "sequential"]})
    ids = {cell.values["positions"]: cell.id for cell in other}
    assert [ids[cell.values["positions"]] for cell in first] == [cell.id for cell in first]


def test_a_given_name_that_is_the_encoders_own_changes_no_id(tiny_recipe: Make, registries: Registries) -> None:
    axes = {"positions": ["sequential"]}
    named = tiny_recipe("encoders.0.name=patchify")
    assert plan_cells(named, registries, axes=axes)[0].id == plan_cells(tiny_recipe(), registries, axes=axes)[0].id


def test_without_words_on_the_command_line_the_recipe_decides(tiny_recipe: Make, registries: Registries) -> None:
    ablation = {"axes": {"positions": ["sequential", "share_all"]}, "seeds": 3, "set": {"stages.tune.steps": 1}}
    cells = plan_cells(tiny_recipe(ablation=ablation), registries)
    assert len(cells) == 6
    assert {cell.recipe.stages[1].steps for cell in cells} == {1}
    assert {cell.recipe.ablation.seeds for cell in cells} == {1}  # a cell is not an ablation itself
    assert len(plan_cells(tiny_recipe(ablation=ablation), registries, axes={"order": "all"}, seeds=1)) == 2


def test_without_an_axis_there_is_nothing_to_do(tiny_recipe: Make, registries: Registries) -> None:
    with pytest.raises(RecipeError, match=r"no axis\. Give --axis name=values"):
        plan_cells(tiny_recipe(), registries)


def test_the_problems_of_all_cells_are_listed(tiny_recipe: Make, registries: Registries) -> None:
    axes = {"fusion.patches_per_token": [3, 2, 5], "positions": ["sequential", "no_such"]}
    with pytest.raises(RecipeError) as caught:
        plan_cells(tiny_recipe(), registries, axes=axes, seeds=2)
    heads = [problem.split(": ")[0] for problem in caught.value.problems]
    assert sorted(set(heads)) == [
        "fusion.patches_per_token=2, positions=no_such",
        "fusion.patches_per_token=3, positions=no_such",
        "fusion.patches_per_token=3, positions=sequential",
        "fusion.patches_per_token=5, positions=no_such",
        "fusion.patches_per_token=5, positions=sequential",
    ]
    assert any("patches_per_token is 5 for encoder #1, whose 2 columns" in one for one in caught.value.problems)
    assert any("unknown position scheme 'no_such'" in one for one in caught.value.problems)


def test_changes_for_every_cell_that_lead_nowhere_are_refused(tiny_recipe: Make, registries: Registries) -> None:
    recipe = tiny_recipe(ablation={"axes": {"order": "all"}, "set": {"stages.tuen.steps": 1}})
    with pytest.raises(RecipeError, match=r"\[ablation.set\] stages.tuen.steps: 'stages' has no item 'tuen'"):
        plan_cells(recipe, registries)


def test_two_encoders_of_one_kind_keep_their_names_when_they_change_places(
    tiny_recipe: Make, registries: Registries
) -> None:
    small = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8}
    recipe = tiny_recipe(encoders=[small, {**small, "patch_size": 8}])
    cells = plan_cells(recipe, registries, axes={"order": "all"})
    assert [[(table.name, table.patch_size) for table in cell.recipe.encoders] for cell in cells] == [
        [("patchify", 16), ("patchify-2", 8)],
        [("patchify-2", 8), ("patchify", 16)],
    ]


def test_seeds_are_no_axis(tiny_recipe: Make, registries: Registries) -> None:
    with pytest.raises(RecipeError, match="Use --seeds N"):
        plan_cells(tiny_recipe(), registries, axes={"seed": [3, 4]})


def test_a_value_that_is_there_twice_is_no_second_seed(tiny_recipe: Make, registries: Registries) -> None:
    with pytest.raises(RecipeError, match="positions=share_row is there twice"):
        plan_cells(tiny_recipe(), registries, axes={"positions": ["share_row", "share_row"]})


@pytest.mark.parametrize(("axis", "values"), [("name", ["a", "b"]), ("fusion.patches_per_token", [2, [2, 2]])])
def test_values_that_make_one_recipe_are_refused(
    axis: str, values: list[object], tiny_recipe: Make, registries: Registries
) -> None:
    axes = {axis: values}
    if axis == "name":
        with pytest.raises(RecipeError, match="name=b is the same recipe as name=a"):
            plan_cells(tiny_recipe(), registries, axes=axes)
    else:  # written otherwise it is another recipe to the letter, so it stays two cells
        assert len({cell.id for cell in plan_cells(tiny_recipe(), registries, axes=axes)}) == 2


def test_a_cell_is_named_after_its_content(tiny_recipe: Make, registries: Registries) -> None:
    axes = {"positions": ["share_all"]}
    (one,), (other,) = (plan_cells(tiny_recipe(change), registries, axes=axes) for change in ("name=a", "name=b"))
    assert one.recipe.dump() == other.recipe.dump()
    assert one.recipe.name == f"cell-{one.id}"


def test_no_tiles_can_be_compared_with_tiles_whatever_the_recipe_has(tiny_recipe: Make, registries: Registries) -> None:
    values = [False, {}, {"grids": [[1, 2]], "fit": "squash"}]
    for recipe in (tiny_recipe(), tiny_recipe("encoders.0.tiling={}")):
        cells = plan_cells(recipe, registries, axes={"encoders.0.tiling": values})
        tilings = [cell.recipe.encoders[0].tiling for cell in cells]
        assert tilings[0] is None
        assert [len(one.grids) for one in tilings[1:]] == [5, 1]
        assert cells[0].id == recipe_id(tiny_recipe("encoders.0.name=patchify", "encoders.1.name=color-grid"))


def test_frozen_and_learning_encoders_can_be_compared_in_one_grid(tiny_recipe: Make, registries: Registries) -> None:
    learns = {"encoders.0.tune": "lora", "stages.tune.trains": ["connector", "encoders", "lm"]}
    cells = plan_cells(tiny_recipe(), registries, axes={"set": [{}, learns]})
    assert [cell.recipe.encoders[0].tune for cell in cells] == ["frozen", "lora"]
    assert [cell.recipe.stages[1].trains for cell in cells] == [["connector", "lm"], ["connector", "encoders", "lm"]]


def test_the_recipe_classes_are_built_once_for_all_cells(
    tiny_recipe: Make, registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[type[Recipe]] = []

    def build(found: Registries) -> type[Recipe]:
        built.append(recipe_model(found))
        return built[-1]

    monkeypatch.setattr("polyvex.recipe.read.recipe_model", build)
    cells = plan_cells(tiny_recipe(), registries, axes={"stages.tune.steps": [3, 4, 5]})
    assert len(built) == 1
    assert {type(cell.recipe) for cell in cells} == set(built)
    assert len({type(table) for cell in cells for table in cell.recipe.encoders}) == 2  # patchify and color-grid


def test_a_default_scheme_that_every_encoder_overrides_changes_no_cell(
    tiny_recipe: Make, registries: Registries
) -> None:
    own = [f"encoders.{index}.positions={{use='share_all'}}" for index in (0, 1)]
    with pytest.raises(RecipeError) as caught:
        plan_cells(tiny_recipe(*own), registries, axes={"positions": ["sequential", "share_row"]})
    assert len(caught.value.problems) == 1
