"""Plans: sizes against models that are really built, costs by their laws, problems with their numbers."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from polyvex.assemble import build_model, make_processor
from polyvex.cache import fill_cache
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.moe.upcycle import install_experts
from polyvex.plan import Plan, make_plan
from polyvex.recipe import Recipe
from polyvex.recipe.samples import read_split, training_texts
from polyvex.training.stages import train

from .conftest import SIDES

Make = Callable[..., Recipe]


def size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(recipe: Recipe, registries: Registries) -> PolyvexForConditionalGeneration:
    processor = make_processor(recipe, registries, training_texts(recipe, registries))
    model, _ = build_model(recipe, processor, registries, encoders=False)
    return model


@pytest.mark.parametrize("scheme", ["share_row", "share_row_col"])
@pytest.mark.parametrize("fusion", ["fusion.shared=false", "fusion.depth=1", "fusion.patches_per_token=2"])
def test_parameters_are_those_of_a_model_that_is_really_built(
    tiny_recipe: Make, registries: Registries, scheme: str, fusion: str
) -> None:
    recipe = tiny_recipe(f"positions.use={scheme}", fusion)
    plan = make_plan(recipe, registries)
    model = build(recipe, registries)
    assert [stage.total for stage in plan.stages[:2]] == [size(model)] * 2
    assert recipe.moe is not None
    router = recipe.moe.router
    install_experts(model.lm, recipe.moe, (registries.routers[router.use], router), copy=True, context=None)
    assert plan.stages[2].total == size(model)


def test_trainable_parameters_are_those_that_training_reports(
    tiny_recipe: Make, registries: Registries, tmp_path: Path
) -> None:
    stages = [
        {"name": "language", "trains": ["lm"], "steps": 1, "batch_size": 4, "images": False},
        {"name": "align", "trains": ["connector"], "steps": 1, "batch_size": 4},
        {"name": "part", "trains": ["lm.attention", "lm.*.norm.weight"], "steps": 1, "batch_size": 4},
        {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 1, "batch_size": 4},
    ]
    recipe = tiny_recipe("positions.use=share_row_col", stages=stages)
    run = train(recipe, tmp_path / "run", registries=registries, say=lambda _: None, progress=False)
    reported = [(run.stage(index, stage).done() or {}) for index, stage in enumerate(recipe.stages)]
    plan = make_plan(recipe, registries)
    assert [stage.trainable for stage in plan.stages] == [record["trained_parameters"] for record in reported]
    assert [stage.name for stage in plan.stages] == ["language", "align", "part", "experts"]


def test_idle_experts_are_not_active(tiny_recipe: Make, registries: Registries) -> None:
    # Layer 0 of 2 is sparse; 4 experts of 2·64·32 + 32·64 = 6144 weights, of which 2 work on a token: 2 · 6144 idle.
    tune, experts = make_plan(tiny_recipe(), registries).stages[1:]
    assert tune.active == tune.total
    assert experts.total - experts.active == 2 * 6144
    # Three experts more than the dense FFN, and a router of 4 · 32.
    assert experts.total - tune.total == 3 * 6144 + 4 * 32


def stage_of(make: Make, registries: Registries, **changes: Any) -> Any:
    stage = {"name": "tune", "trains": ["lm"], "steps": 10, "batch_size": 8, **changes}
    (cost,) = make_plan(make(moe=None, stages=[stage]), registries).stages
    return cost


def test_arithmetic_grows_with_steps_and_batch(tiny_recipe: Make, registries: Registries) -> None:
    one = stage_of(tiny_recipe, registries)
    assert stage_of(tiny_recipe, registries, steps=30).flops == pytest.approx(3 * one.flops, rel=1e-9)
    assert stage_of(tiny_recipe, registries, batch_size=24).flops == pytest.approx(3 * one.flops, rel=1e-9)
    cut = stage_of(tiny_recipe, registries, batch_size=24, accumulate=3)
    assert cut.flops == pytest.approx(3 * one.flops, rel=1e-9)


def test_memory_grows_with_the_batch_and_not_with_steps(tiny_recipe: Make, registries: Registries) -> None:
    eight, sixteen, forty = (stage_of(tiny_recipe, registries, batch_size=size).memory_bytes for size in (8, 16, 40))
    assert sixteen > eight
    assert forty - eight == 4 * (sixteen - eight)
    assert stage_of(tiny_recipe, registries, steps=1000).memory_bytes == eight
    assert stage_of(tiny_recipe, registries, batch_size=40, accumulate=5).memory_bytes == eight


def test_memory_of_weights_by_hand(tiny_recipe: Make, registries: Registries) -> None:
    # Every weight takes 4 bytes; each that trains 12 more: a gradient and AdamW's two moments. A connector that trains
    # keeps what its layers saw, of 8 samples: tokens of 8 and 6 numbers, and GELU's 32 before and after, at 12 places.
    all_of_it = stage_of(tiny_recipe, registries, trains=["lm", "connector"])
    little = stage_of(tiny_recipe, registries, trains=["lm.head"])
    assert little.total == all_of_it.total
    seen = 8 * 4 * (4 * 8 + 8 * 6 + 2 * 12 * 32)
    assert all_of_it.memory_bytes - little.memory_bytes == 12 * (all_of_it.trainable - little.trainable) + seen
    assert all_of_it.flops > little.flops


def test_a_sequence_that_overflows_is_a_problem_with_its_numbers(paper_recipe: Make, papers: Registries) -> None:
    # All six of MouSi overflow Vicuna's 4096 tokens, and sharing positions does not help: papers.md, 1.7.
    plan = make_plan(paper_recipe(list(SIDES), "lm.max_positions=4096", "positions.use=share_all"), papers)
    (problem,) = plan.problems
    assert problem.startswith(
        f"the language model's context holds 4096 tokens, but 6404 visual and about {plan.text_tokens} text tokens "
        f"need {6404 + plan.text_tokens}. "
    )
    assert "Sharing positions does not shorten the sequence" in problem
    assert (plan.visual_tokens, plan.visual_positions, plan.context) == (6404, 6, 4096)


def test_a_sequence_that_just_fits_is_none(paper_recipe: Make, papers: Registries) -> None:
    text = make_plan(paper_recipe(["clip"], "lm.max_positions=4096"), papers).text_tokens
    assert make_plan(paper_recipe(["clip"], f"lm.max_positions={576 + text}"), papers).problems == []
    assert len(make_plan(paper_recipe(["clip"], f"lm.max_positions={575 + text}"), papers).problems) == 1


WAIT = "no problem found; get what is missing before training"


def test_missing_weights_are_told_with_a_way_to_get_them(paper_recipe: Make, papers: Registries) -> None:
    encoders = [{"use": "mae", "here": False, "name": "eye"}, "layoutlmv3"]
    plan = make_plan(paper_recipe(encoders, "lm.max_positions=4096"), papers)
    assert plan.missing == ["encoder eye: pip install paper-weights"]
    assert plan.problems == []
    assert str(plan).endswith("MISSING: encoder eye: pip install paper-weights\n\n" + WAIT)


def test_a_licence_against_commerce_is_a_note_and_no_problem(paper_recipe: Make, papers: Registries) -> None:
    encoders = [{"use": "mae", "free": False, "name": "eye"}, "layoutlmv3"]
    plan = make_plan(paper_recipe(encoders, "lm.max_positions=4096"), papers)
    assert "encoder eye: its weights are NOT for commercial use (CC-BY-NC-4.0)" in plan.notes
    assert plan.problems == []
    assert not any("layoutlmv3" in note for note in plan.notes)


def test_upcycling_that_changes_the_model_is_noted(tiny_recipe: Make, registries: Registries) -> None:
    def notes(change: str) -> list[str]:
        plan = make_plan(tiny_recipe(change), registries)
        assert plan.problems == []
        return [note for note in plan.notes if "do not sum to one" in note]

    assert notes("moe.router.renormalize=true") == []
    (note,) = notes("moe.router.renormalize=false")
    assert note.startswith("stage experts: ")
    assert "top_k with renormalize = true would keep it equal" in note


def test_random_weights_are_noted(tiny_recipe: Make, registries: Registries) -> None:
    assert "the language model 'small-llama' starts from RANDOM weights" in make_plan(tiny_recipe(), registries).notes


def test_a_stage_that_trains_nothing_is_a_problem(tiny_recipe: Make, registries: Registries) -> None:
    stages = [
        {"name": "align", "trains": ["connector"], "steps": 1},
        {"name": "lost", "trains": ["no_such_*"], "steps": 1},
    ]
    plan = make_plan(tiny_recipe(moe=None, stages=stages), registries)
    (problem,) = plan.problems
    assert problem.startswith("stage lost: ")
    assert "'no_such_*' selects no parameter" in problem
    assert [stage.name for stage in plan.stages] == ["align"]


def test_a_language_model_that_is_not_here_is_a_problem_and_the_rest_is_planned(
    tiny_recipe: Make, registries: Registries, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no-model")
    plan = make_plan(
        tiny_recipe(
            lm={"use": "pretrained", "checkpoint": missing},
            moe=None,
            stages=[{"name": "align", "trains": ["connector"], "steps": 1}],
        ),
        registries,
    )
    assert len(plan.problems) == 1
    assert missing in plan.problems[0]
    assert (plan.stages, plan.context, plan.visual_tokens, plan.visual_positions) == ([], 0, 12, 4)


def test_images_and_the_bytes_that_their_tokens_take(tiny_recipe: Make, registries: Registries) -> None:
    # 24 pictures; 4 tokens of width 8 and 8 tokens of width 6, at 4 bytes: 24 · (32 + 48) · 4.
    plan = make_plan(tiny_recipe(), registries)
    assert (plan.images, plan.cache_bytes, plan.cached_bytes) == (24, 24 * 80 * 4, 0)
    assert make_plan(tiny_recipe("cache.dtype=float16"), registries).cache_bytes == 24 * 80 * 2


def test_what_is_cached_already_is_counted(tiny_recipe: Make, registries: Registries, cache_folder: Path) -> None:
    recipe = tiny_recipe()
    fill_cache(recipe, registries, read_split(recipe, registries, "test"), progress=False)  # 6 of 24 pictures
    plan = make_plan(recipe, registries)
    assert (plan.cached_bytes, plan.cache_folder) == (6 * 80 * 4, str(cache_folder))


def test_each_image_counts_in_the_cache_with_its_own_tiles(
    tiny_recipe: Make, registries: Registries, cache_folder: Path, tmp_path: Path
) -> None:
    # 96 × 32 fills 1 × 3 tiles and is the costliest to read; 100 × 64 takes 2 × 2, most of them cut off behind the
    # fusion, so it has one tile more. With the base: 4 + 3 · 5 tiles of 4 tokens of width 8, at 4 bytes.
    records = []
    for number, size in enumerate([(96, 32), (100, 64), (100, 64), (100, 64)]):
        Image.new("RGB", size, (number, 0, 0)).save(tmp_path / f"{number}.png")
        records.append({"id": str(number), "image": f"{number}.png", "question": "q", "answer": "a"})
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    patches = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, "tiling": {}}
    recipe = tiny_recipe(encoders=[patches], data={"use": "jsonl", "folder": str(tmp_path)})
    plan = make_plan(recipe, registries)
    assert (plan.visual_size, plan.cache_bytes, plan.cached_bytes) == ((32, 96), 19 * 4 * 8 * 4, 0)
    tokens, _ = fill_cache(recipe, registries, read_split(recipe, registries, "test"), progress=False)
    (store,) = tokens.stores.values()
    assert store.tiles == 19
    assert make_plan(recipe, registries).cached_bytes == 19 * 4 * 8 * 4


def test_without_data_64_text_tokens_are_assumed_and_it_says_so(
    tiny_recipe: Make, registries: Registries, tmp_path: Path
) -> None:
    plan = make_plan(tiny_recipe(data={"use": "jsonl", "folder": str(tmp_path / "none")}), registries)
    assert (plan.images, plan.text_tokens) == (0, 64)
    (told,) = plan.missing
    assert told.startswith("the data set cannot be read, so one image and 64 text tokens")
    assert plan.problems == []


def test_a_data_set_that_is_there_and_cannot_be_read_is_a_problem(
    tiny_recipe: Make, registries: Registries, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text("no JSON\n")
    plan = make_plan(tiny_recipe(data={"use": "jsonl", "folder": str(tmp_path)}), registries)
    (problem,) = plan.problems
    assert "train.jsonl:1: not JSON: " in problem
    assert plan.missing == []


def test_a_language_model_that_is_to_be_fetched_is_planned_from_its_structure(
    tiny_recipe: Make, registries: Registries
) -> None:
    structure = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    structure |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 300, "max_position_embeddings": 99}
    table = {"use": "pretrained", "checkpoint": "nobody/nothing", "structure": structure}
    plan = make_plan(tiny_recipe(lm=table), registries)
    assert plan.problems == []
    assert plan.missing == ["language model pretrained: hf download nobody/nothing --revision main"]
    assert plan.context == 99
    # Embeddings and head 2 · 300 · 64, attention 2 · 4 · 64², FFN 2 · 3 · 64 · 96, norms 5 · 64.
    connector = plan.stages[0].trainable
    assert plan.stages[0].total - connector == 2 * 300 * 64 + 2 * 4 * 64**2 + 2 * 3 * 64 * 96 + 5 * 64


def test_a_plan_puts_nothing_into_the_cache(tiny_recipe: Make, registries: Registries, cache_folder: Path) -> None:
    make_plan(tiny_recipe(), registries)
    assert list(cache_folder.iterdir()) == []


def test_planned_text_is_no_shorter_than_the_real_one(tiny_recipe: Make, registries: Registries) -> None:
    recipe = tiny_recipe()
    prompts = make_processor(recipe, registries, training_texts(recipe, registries)).prompts
    samples = [sample for split in ("train", "test") for sample in read_split(recipe, registries, split)]
    longest = max(len(prompts.example(sample.question, sample.answer, images=1)[0]) for sample in samples)
    plan = make_plan(recipe, registries)
    assert plan.visual_tokens + plan.text_tokens >= longest


def test_a_plan_for_people(paper_recipe: Make, papers: Registries) -> None:
    recipe = paper_recipe([{"use": "mae", "here": False}], "lm.max_positions=128")
    text = str(make_plan(recipe, papers))
    assert text.splitlines()[0] == "plan of tiny"
    row = next(line for line in text.splitlines() if line.strip().startswith("mae"))
    assert row.split() == ["mae", "224x224", "256", "256", "16x16", "16", "10", "1.00", "k", "?", "MIT"]
    assert text.count("PROBLEM: ") == text.count("MISSING: encoder mae") == 1
    assert "note: the language model 'small-llama' starts from RANDOM weights" in text
    fine = make_plan(paper_recipe(["mae"], "lm.max_positions=512"), papers)
    assert str(fine).endswith("no problem found")


def test_a_plan_is_plain_data(tiny_recipe: Make, registries: Registries) -> None:
    plan = make_plan(tiny_recipe(), registries)
    record = json.loads(json.dumps(plan.as_dict()))
    assert set(record) == {field.name for field in dataclasses.fields(Plan)}
    assert record["encoders"][1]["tokens_out"] == 8
    assert record["stages"][0]["trainable"] == plan.stages[0].trainable


def test_a_stage_without_images_has_no_visual_token_to_pay(tiny_recipe: Make, registries: Registries) -> None:
    stages = [{"name": "a", "trains": ["lm"], "steps": 1, "images": False}, {"name": "b", "trains": ["lm"], "steps": 1}]
    blind, seeing = make_plan(tiny_recipe(stages=stages, moe=None), registries).stages
    assert blind.flops < seeing.flops
    assert blind.memory_bytes < seeing.memory_bytes


def test_several_images_of_a_sample_all_count(
    tiny_recipe: Make, registries: Registries, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_data, folder)
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[3]["images"] = [lines[3].pop("image")] * 12
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plan = make_plan(tiny_recipe("lm.max_positions=150", data={"use": "jsonl", "folder": str(folder)}), registries)
    assert plan.images_per_sample == 12
    (problem,) = plan.problems
    assert f"holds 150 tokens, but 12 images of 12 visual and about {plan.text_tokens} text tokens" in problem
    assert "up to 12 images of 12 visual" in str(plan)
    one = make_plan(tiny_recipe(), registries)
    assert plan.stages[0].flops > one.stages[0].flops


def test_a_router_that_answers_cannot_train_is_noted(tiny_recipe: Make, registries: Registries) -> None:
    def notes(*changes: str) -> list[str]:
        return [
            note for note in make_plan(tiny_recipe(*changes), registries).notes if "do not train the router" in note
        ]

    assert notes("moe.router.k=2") == []
    assert notes("moe.router.k=1", "moe.router.renormalize=false") == []
    (note,) = notes("moe.router.k=1", "moe.router.renormalize=true")
    assert note.startswith("stage experts: ")


def test_a_plan_leaves_random_numbers_alone(tiny_recipe: Make, registries: Registries) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    make_plan(tiny_recipe(), registries)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_encoder_that_learns_costs_its_own_passes_alone(tiny_recipe: Make, registries: Registries) -> None:
    # Its weights do not work on the language model's tokens: forward and backward of its images come on top of what
    # the same stage costs with all encoders frozen.
    def flops(**encoder: Any) -> int:
        encoders = [{"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, **encoder}]
        trains = ["connector", *(["encoders"] if encoder else [])]
        stage = {"name": "tune", "trains": trains, "steps": 3, "batch_size": 4}
        return make_plan(tiny_recipe(moe=None, stages=[stage], encoders=encoders), registries).stages[0].flops

    own = 2 * 4 * 8 * 3 * 16**2  # 4 patches through a linear map
    assert flops(tune="trainable") - flops() == pytest.approx(3 * 4 * 3 * own, abs=2)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (["fusion.separator=text", "fusion.separator_text=abcdef"], "counted as 2 tokens by its length"),
        (
            ["fusion={use='routed', grid=[2, 2]}"],
            "fusion routed: k = 2 takes all 2 encoders for every question, so none is ever left out",
        ),
        (["training.pack=true", "stages.0.batch_size=1"], "stage align: one sample at a time leaves nothing to pack"),
    ],
)
def test_what_has_less_effect_than_it_seems_is_noted(
    changes: list[str], note: str, tiny_recipe: Make, registries: Registries
) -> None:
    assert any(note in one for one in make_plan(tiny_recipe(*changes), registries).notes)
    assert not any(note in one for one in make_plan(tiny_recipe(), registries).notes)
