"""What tables say together: shapes, names, stages, experts."""

from collections.abc import Callable

import pytest

from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.check import encoder_shapes, find_problems, recipe_layouts
from polyvex.tokens import Grid, TokenShape

Problems = Callable[..., list[str]]
PARTS = "connector, encoders, lm, lm.embeddings, lm.attention, lm.ffn, lm.moe, lm.head, lm.lora, lm.partial_lora"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["encoders.0.patch_size=15"],
            "[[encoders]] #1 (patchify): image_size 32 is not a multiple of patch_size 15",
        ),
        (
            ["fusion.patches_per_token=3"],
            "[fusion]: patches_per_token is 3 for encoder #1, whose 2 columns it does not divide. Use one of 1, 2",
        ),
        (
            ["fusion.patches_per_token=[1]"],
            "[fusion]: patches_per_token has 1 numbers for 2 encoders. Give one number, or one per encoder",
        ),
        (["stages.0.name=tune"], "[[stages]]: the name 'tune' is used 2 times; names must differ"),
        (
            ["moe.router.k=9"],
            "[moe.router]: router k is 9, but there are only 4 experts. Lower k or add experts",
        ),
        (
            ["moe.router={use='soft'}"],
            "[moe.router]: 'soft' lets a language model see later tokens while it trains, which it cannot when it "
            "writes. Take top_k, or say non_causal = true in [moe]",
        ),
        (
            ["moe.router={use='expert_choice'}", "moe.non_causal=true", "training.pack=true"],
            "[training]: 'expert_choice' lets the texts of a row see each other, so they cannot be packed. Set pack = "
            "false",
        ),
        (
            ["moe.non_causal=true"],
            "[moe]: non_causal = true has no effect with the router 'top_k'; take it out",
        ),
        (
            ["moe.router={use='expert_choice', capacity=5.0}", "moe.non_causal=true"],
            "[moe.router]: router capacity is 5.0, but there are only 4 experts. Lower it, or add experts",
        ),
        (
            ["loss.load=0.1"],
            "[loss]: load = 0.1 would teach nothing, for 'top_k' estimates no loads. Take noisy_top_k with fewer "
            "choices than experts, or load_balance",
        ),
        (
            ["fusion.depth=1", "fusion.shared=false"],
            "[fusion]: shared = false has no effect with depth = 1, which has no second layer. Raise depth, or take it "
            "out",
        ),
        (["moe.layers=[7]"], "[moe]: moe layers [7] are out of range: the language model has layers 0 to 1"),
        (["moe.layers=[0, 0]"], "[moe]: moe layers [0, 0] name a layer twice"),
        (
            ['stages.0.trains=["lm.partial_lora"]', "stages.0.images=false", "lm.partial_lora={targets=['q_proj']}"],
            "[[stages]] align: trains lm.partial_lora with images = false, so nothing would reach it",
        ),
        (["moe.backend=fast"], "[moe]: backend is 'fast', expected auto, loop, grouped_mm, or transformers.NAME"),
        (["stages.1.upcycle=true"], "[moe]: exactly one stage must have upcycle = true, got 2 (tune, experts)"),
        (
            ['stages.0.trains=["conector"]'],
            "[[stages]] align: unknown part in trains 'conector'. Did you mean 'connector' or 'encoders'? "
            f"Known: {PARTS}, or a pattern with *",
        ),
        (
            ['stages.0.trains=["encoders"]'],
            "[[stages]] align: trains encoders, but all of them are frozen. Set tune = 'lora' or 'trainable' in "
            "[[encoders]]",
        ),
        (
            ["encoders.0.tune=lora"],
            "[[encoders]] patchify: tune is 'lora', but no stage trains encoders, or encoders.patchify. Add it to a "
            "stage's trains, or leave the encoder frozen",
        ),
        (
            ["encoders.0.tune=trainable", "encoders.0.precision=float16", 'stages.0.trains=["encoders"]'],
            "[[encoders]] patchify: learns in float16, whose small gradients vanish. Set precision = 'bfloat16' or "
            "'float32'",
        ),
        (
            ["encoders.0.lora.rank=4"],
            "[[encoders]] patchify: lora has no effect with tune = 'frozen'. Set tune = 'lora', or take it out",
        ),
        (
            ["encoders.0.tune=trainable", "stages.0.images=false", 'stages.0.trains=["encoders.patchify"]'],
            "[[stages]] align: trains encoders with images = false, so nothing would reach them",
        ),
        (["stages.0.accumulate=3"], "[[stages]] align: batch_size 4 is not a multiple of accumulate 3"),
        (["stages.0.warmup=4"], "[[stages]] align: warmup 4 is longer than the stage's 3 steps"),
        (
            ["stages.1.lr.lm=0.1"],
            "[[stages]] tune: lr has rates for ['lm'], expected one for each of ['connector', 'lm']",
        ),
        (
            ['stages.0.trains=["lm.moe"]'],
            "[[stages]] align: trains lm.moe, but no expert exists yet; set upcycle = true here or before",
        ),
        (
            ["stages.0.images=false"],
            "[[stages]] align: trains the connector with images = false, so nothing would reach it",
        ),
        (
            ["evaluation.metric=exact_mach"],
            "[evaluation]: unknown metric 'exact_mach'. Did you mean 'exact_match'? Known: exact_match",
        ),
    ],
)
def test_what_cannot_work_together_is_told_with_a_way_out(
    changes: list[str], message: str, problems_of: Problems
) -> None:
    assert problems_of(*changes) == [message]


def test_experts_without_a_stage_that_makes_them(problems_of: Problems) -> None:
    assert problems_of("stages.2.upcycle=false") == [
        "[moe]: exactly one stage must have upcycle = true, got 0 (none has)",
        "[[stages]] experts: trains lm.moe, but no expert exists yet; set upcycle = true here or before",
    ]


def test_a_stage_that_upcycles_without_experts(problems_of: Problems) -> None:
    assert problems_of(moe=None) == [
        "[[stages]] experts: upcycle is true, but there is no [moe] table",
        "[[stages]] experts: trains lm.moe, but no expert exists yet; set upcycle = true here or before",
    ]


@pytest.mark.parametrize("layers", ["[]", "first_half"])
def test_experts_in_no_layer_are_an_option_without_effect(layers: str, problems_of: Problems) -> None:
    # The first half of one layer is none. A run would train a dense model under the name of a sparse one.
    (problem,) = problems_of("lm.layers=1", f"moe.layers={layers}")
    assert problem.startswith("[moe]: ")


def test_a_part_named_twice_is_told_before_training(problems_of: Problems) -> None:
    # Each parameter counts for the first entry that fits, so the second would select nothing.
    (problem,) = problems_of('stages.0.trains=["connector", "connector"]')
    assert problem.startswith("[[stages]] align: ")


def test_encoder_names_that_clash_with_a_numbered_one(problems_of: Problems) -> None:
    encoders = [{"use": "color-grid", "name": name} for name in ("a", "a", "a-2")]
    assert problems_of(encoders=encoders) == ["[[encoders]]: the name 'a-2' is used 2 times; names must differ"]


@pytest.mark.parametrize("pattern", ["lm.model.layers.0.*", "*.bias", "fusion.*"])
def test_patterns_may_stand_for_parts(pattern: str, check: Callable[..., Recipe]) -> None:
    assert check(f'stages.0.trains=["{pattern}"]').stages[0].trains == [pattern]


def test_rates_for_each_part_are_fine(check: Callable[..., Recipe]) -> None:
    assert check("stages.1.lr.lm=1e-4", "stages.1.lr.connector=1e-3").stages[1].lr == {"lm": 1e-4, "connector": 1e-3}


def test_shapes_are_known_before_anything_is_built(check: Callable[..., Recipe], known: Registries) -> None:
    recipe = check("fusion.patches_per_token=2")
    assert encoder_shapes(recipe, known) == [
        TokenShape(tokens=4, dim=8, grid=Grid(rows=2, cols=2)),
        TokenShape(tokens=8, dim=6, grid=Grid(rows=2, cols=4)),
    ]
    assert [run.tile for run in recipe_layouts(recipe, known, dim=32).runs] == [
        TokenShape(tokens=2, dim=32, grid=Grid(rows=2, cols=1)),
        TokenShape(tokens=4, dim=32, grid=Grid(rows=2, cols=2)),
    ]


def test_a_good_recipe_has_no_problems(check: Callable[..., Recipe], known: Registries) -> None:
    assert find_problems(check(), known) == []


def test_mistakes_of_several_parts_are_told_together(problems_of: Problems) -> None:
    problems = problems_of(
        "encoders.0.reduce={use='perceiver', heads=3}",
        "encoders.1.reduce={use='average_pool', size=5}",
        "fusion.separator=text",
        "moe.router.k=9",
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "[[encoders]] #1 (patchify).reduce",
        "[[encoders]] #2 (color-grid).reduce",
        "[fusion]",
        "[moe.router]",
    ]


def test_losses_of_routers_have_no_effect_without_experts(
    problems_of: Problems, tiny_recipe: Callable[..., Recipe]
) -> None:
    dense = {"moe": None, "stages": [{"name": "tune", "trains": ["lm"], "steps": 1}]}
    assert tiny_recipe("loss.load_balance=0.0", **dense).loss.load_balance == 0
    assert problems_of("loss.importance=0.1", "loss.balance=all", **dense) == [
        "[loss]: importance has no effect without a [moe] table: there is no router to teach",
        "[loss]: balance has no effect without a [moe] table: there is no router to teach",
    ]
