"""What the checker says about one table at a time: place, what was got, what was expected, the nearest name."""

from collections.abc import Callable
from typing import Any

import pytest

from polyvex.errors import RecipeError
from polyvex.hooks.manager import load_registries
from polyvex.recipe import Recipe, parse_recipe

Problems = Callable[..., list[str]]

TOP = (
    "ablation, cache, data, encoders, evaluation, fusion, lm, loss, moe, name, positions, prompt, seed, stages, "
    "training"
)
STAGE = (
    "accumulate, batch_size, images, lr, max_grad_norm, name, schedule, steps, trains, upcycle, warmup, weight_decay"
)


def check_known(problems: list[str], message: str) -> None:
    """One problem, which begins as ``message`` does and lists at least the names that ``message`` lists, sorted."""
    assert len(problems) == 1
    (start, _, names), (wanted, _, some) = problems[0].rpartition("Known: "), message.rpartition("Known: ")
    assert start == wanted
    assert sorted(names.split(", ")) == names.split(", ")
    assert set(some.split(", ")) <= set(names.split(", "))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "encoders.0.use=patchfy",
            "[[encoders]] #1 (patchfy): unknown encoder 'patchfy'. Did you mean 'patchify'? Known: color-grid, "
            "patchify, random-features",
        ),
        ("encoders.1.use=x", "[[encoders]] #2 (x): unknown encoder 'x'. Known: color-grid, patchify, random-features"),
        ("fusion.use=mpl", "[fusion]: unknown fusion 'mpl'. Did you mean 'mlp'? Known: mlp"),
        (
            "positions.use=share_rwo",
            "[positions]: unknown position scheme 'share_rwo'. Did you mean 'share_row' or 'share_row_col' or "
            "'share_all'? Known: sequential, share_all, share_row, share_row_col",
        ),
        (
            "lm.use=llama",
            "[lm]: unknown language model 'llama'. Did you mean 'small-llama'? Known: pretrained, small-llama",
        ),
        (
            "moe.router.use=topk",
            "[moe.router]: unknown router 'topk'. Did you mean 'top_k' or 'noisy_top_k'? Known: "
            "expert_choice, noisy_top_k, soft, switch, top_k",
        ),
        ("data.use=jsonlines", "[data]: unknown data set 'jsonlines'. Did you mean 'jsonl'? Known: jsonl"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_all_known(change: str, message: str, problems_of: Problems) -> None:
    check_known(problems_of(change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sed=1", f"top level: unknown key 'sed', did you mean 'seed'? Known: {TOP}"),
        (
            "encoders.0.image_sise=1",
            "[[encoders]] #1 (patchify): unknown key 'image_sise', did you mean 'image_size'? "
            "Known: dim, image_size, lora, name, patch_size, precision, seed, tiling, tune, use",
        ),
        (
            "encoders.1.row=1",
            "[[encoders]] #2 (color-grid): unknown key 'row', did you mean 'rows'? Known: cols, image_size, lora, "
            "name, precision, rows, tiling, tune, use",
        ),
        (
            "fusion.dept=1",
            "[fusion]: unknown key 'dept', did you mean 'depth'? Known: depth, patches_per_token, shared, use",
        ),
        ("fusion.zzz=1", "[fusion]: unknown key 'zzz'. Known: depth, patches_per_token, shared, use"),
        (
            "lm.layrs=1",
            "[lm]: unknown key 'layrs', did you mean 'layers'? Known: ffn_size, heads, hidden_size, init_std, "
            "kv_heads, layers, max_positions, rope_theta, use, vocab_size",
        ),
        (
            "moe.num_expert=1",
            "[moe]: unknown key 'num_expert', did you mean 'num_experts'? Known: backend, layers, num_experts, router",
        ),
        ("moe.router.kk=1", "[moe.router]: unknown key 'kk', did you mean 'k'? Known: init_std, k, renormalize, use"),
        (
            "data.foldr=1",
            "[data]: unknown key 'foldr', did you mean 'folder'? "
            "Known: folder, max_unreadable, on_unreadable, test_split, train_limit, train_split, use",
        ),
        ("stages.1.stepss=1", f"[[stages]] #2 (tune): unknown key 'stepss', did you mean 'steps'? Known: {STAGE}"),
        (
            "loss.load_balanc=1",
            "[loss]: unknown key 'load_balanc', did you mean 'load_balance'? Known: balance, importance, load, "
            "load_balance, router_z",
        ),
        (
            "prompt.tmplate=1",
            "[prompt]: unknown key 'tmplate', did you mean 'template'? Known: template",
        ),
    ],
)
def test_an_unknown_key_gets_the_nearest_and_all_known(change: str, message: str, problems_of: Problems) -> None:
    check_known(problems_of(change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed=abc", "top level: seed is 'abc', expected int"),
        ("seed='3'", "top level: seed is '3', expected int"),
        ("training.checkpoint_every=2.5", "[training]: checkpoint_every is 2.5, expected int"),
        ("encoders.0.dim=8.0", "[[encoders]] #1 (patchify): dim is 8.0, expected int"),
        ("encoders.0.dim=true", "[[encoders]] #1 (patchify): dim is True, expected int"),
        ("name=2024", "top level: name is 2024, expected string"),
        ("loss.load_balance=much", "[loss]: load_balance is 'much', expected float"),
        ("stages.0.upcycle=maybe", "[[stages]] #1 (align): upcycle is 'maybe', expected true or false"),
        ("stages.0.trains=connector", "[[stages]] #1 (align): trains is 'connector', expected list"),
        ("encoders=3", "top level: encoders is 3, expected list"),
        ("fusion=3", "top level: fusion is 3, expected table"),
        ("moe=3", "top level: moe is 3, expected table"),
        ("loss=3", "top level: loss is 3, expected table"),
        ("stages.0.lr=fast", "[[stages]] #1 (align): lr is 'fast', expected float or table"),
        ("fusion.patches_per_token=two", "[fusion]: patches_per_token is 'two', expected int or list"),
        (
            "moe.layers=third",
            "[moe]: layers is 'third', expected 'first_half', 'second_half', 'sparse' or 'dense' or list",
        ),
    ],
)
def test_a_mistyped_value_is_shown_with_what_was_expected(change: str, message: str, problems_of: Problems) -> None:
    assert problems_of(change) == [message]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.0.steps=0", "[[stages]] #1 (align): steps is 0, expected greater than or equal to 1"),
        ("stages.0.lr=2.0", "[[stages]] #1 (align): lr is 2.0, expected less than or equal to 1 or table"),
        (
            "stages.0.schedule=cos",
            "[[stages]] #1 (align): schedule is 'cos', expected 'cosine', 'linear' or 'constant'",
        ),
        ("lm.vocab_size=10", "[lm]: vocab_size is 10, expected greater than or equal to 264"),
        ("moe.num_experts=1", "[moe]: num_experts is 1, expected greater than or equal to 2 or list"),
        ("data.max_unreadable=2", "[data]: max_unreadable is 2, expected less than or equal to 1"),
        ("data.on_unreadable=ignore", "[data]: on_unreadable is 'ignore', expected 'skip' or 'stop'"),
        ("cache.dtype=int8", "[cache]: dtype is 'int8', expected 'float32', 'float16' or 'bfloat16'"),
    ],
)
def test_a_value_out_of_range_is_shown_with_the_range(change: str, message: str, problems_of: Problems) -> None:
    assert problems_of(change) == [message]


@pytest.mark.parametrize(
    ("change", "place", "rule"),
    [
        ("name=A B", "top level: name is 'A B'", "^[a-z0-9][a-z0-9._-]*$"),
        ("encoders.0.name=A B", "[[encoders]] #1 (A B): name is 'A B'", "^([a-z0-9][a-z0-9_-]*)?$"),
        ("stages.0.trains=[]", "[[stages]] #1 (align): trains is []", "at least 1 item"),
        ("encoders=[]", "top level: encoders is []", "at least 1 item"),
        ("stages=[]", "top level: stages is []", "at least 1 item"),
        ("prompt.template={question}", "[prompt]: template", "must contain {image} once, got 0 times"),
        ("prompt.template={image}{question}{image}", "[prompt]: template", "must contain {image} once, got 2 times"),
        ("prompt.template={image}", "[prompt]: template", "must contain {question} once, got 0 times"),
    ],
)
def test_a_broken_rule_is_quoted_at_its_place(change: str, place: str, rule: str, problems_of: Problems) -> None:
    (problem,) = problems_of(change)
    assert problem.startswith(place)
    assert rule in problem


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"name": None}, "top level: missing key 'name' (Name of the recipe)"),
        ({"fusion": None}, "top level: missing key 'fusion' (How the encoders' tokens become one sequence)"),
        ({"encoders": None}, "top level: missing key 'encoders' (Encoders, in the order in which the model sees them)"),
        ({"moe": {"num_experts": 2}}, "[moe]: missing key 'router' (The router's table: use = … and its options)"),
        (
            {"data": {"use": "jsonl"}},
            "[data]: missing key 'folder' (Folder with one file per split, such as train.jsonl and test.jsonl)",
        ),
        (
            {"stages": [{"name": "a", "trains": ["lm"]}]},
            "[[stages]] #1 (a): missing key 'steps' (Optimizer steps)",
        ),
        ({"lm": {"use": "pretrained"}}, None),
    ],
)
def test_a_missing_key_is_told_with_its_meaning(
    tables: dict[str, Any], message: str | None, problems_of: Problems
) -> None:
    (problem,) = problems_of(**tables)
    if message is None:
        assert problem.startswith("[lm]: missing key 'checkpoint' (Directory of a model")
    else:
        assert problem == message


@pytest.mark.parametrize(
    ("tables", "start"),
    [
        ({"fusion": {}}, "[fusion]: missing key 'use'"),
        ({"moe": {"router": {}}}, "[moe.router]: missing key 'use'"),
        ({"positions": {}}, "[positions]: missing key 'use', which names the position scheme. Known: "),
    ],
)
def test_a_missing_use_is_told(tables: dict[str, Any], start: str, problems_of: Problems) -> None:
    (problem,) = problems_of(**tables)
    assert problem.startswith(start)


def test_a_missing_use_lists_what_there_is(problems_of: Problems) -> None:
    (problem,) = problems_of(encoders=[{"image_size": 32}])
    assert problem == (
        "[[encoders]] #1: missing key 'use', which names the encoder. Known: color-grid, patchify, random-features"
    )


def test_keys_of_an_unknown_component_are_not_judged(problems_of: Problems) -> None:
    # With one component of a kind, its keys would be checked against the wrong options.
    problems = problems_of("fusion.use=mpl", "fusion.heads=3")
    check_known(problems, "[fusion]: unknown fusion 'mpl'. Did you mean 'mlp'? Known: mlp")


def test_options_that_exclude_each_other_are_told_without_the_whole_table(problems_of: Problems) -> None:
    assert problems_of("lm.heads=3") == ["[lm]: hidden_size 32 must be an even multiple of heads 3"]


@pytest.mark.parametrize(
    ("change", "part"),
    [("fusion.patches_per_token=[1, 0]", "is 0, expected"), ("stages.0.lr.connector=2.0", "is 2.0, expected")],
)
def test_a_wrong_item_inside_a_value_is_one_problem(change: str, part: str, problems_of: Problems) -> None:
    (problem,) = problems_of(change)
    assert part in problem


def test_every_problem_is_told_at_once(problems_of: Problems) -> None:
    found = problems_of(
        "sed=1",
        "fusion.use=mpl",
        "encoders.0.use=x",
        "encoders.1.rows=abc",
        "lm.layrs=2",
        "stages.1.steps=0",
        "stages.zz.steps=1",
    )
    starts = [
        "--set stages.zz.steps=1: 'stages' has no item 'zz'",
        "[[encoders]] #1 (x): unknown encoder 'x'",
        "[[encoders]] #2 (color-grid): rows is 'abc'",
        "[fusion]: unknown fusion 'mpl'",
        "[lm]: unknown key 'layrs'",
        "[[stages]] #2 (tune): steps is 0",
        "top level: unknown key 'sed'",
    ]
    assert len(found) == len(starts)
    for problem, start in zip(found, starts, strict=True):
        assert problem.startswith(start)


def test_problems_between_tables_are_told_at_once(problems_of: Problems) -> None:
    found = problems_of("encoders.0.patch_size=15", "stages.0.warmup=9", "moe.router.k=9", "evaluation.metric=bleu")
    assert [problem.split(":")[0] for problem in found] == [
        "[[encoders]] #1 (patchify)",
        "[moe.router]",
        "[[stages]] align",
        "[evaluation]",
    ]


def test_without_any_encoder_plugin_the_recipe_says_so(tiny_tables: Callable[[], dict[str, Any]]) -> None:
    # The core brings no encoder: this is what a person sees who forgot to install one.
    with pytest.raises(RecipeError, match=r"unknown encoder 'patchify'.*is a plugin missing") as caught:
        parse_recipe(tiny_tables(), registries=load_registries(third_party=False))
    assert len(caught.value.problems) == 2


def test_a_good_recipe_has_no_problem(check: Callable[..., Recipe]) -> None:
    assert check().name == "tiny"
