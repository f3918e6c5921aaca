"""Whole runs with encoders that learn and with tiles: trained, stored, loaded, asked."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyvex.answer import load
from polyvex.assemble import build
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.training.evaluate import evaluate_run

from .runs import Run, curve, interrupt, kill, weights

GRID = {"use": "color-grid", "image_size": 32, "rows": 2, "cols": 4}
BOTH = [
    {"name": "align", "trains": ["connector"], "steps": 2, "batch_size": 4},
    {"name": "tune", "trains": ["connector", "encoders", "lm"], "steps": 4, "batch_size": 4},
]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory, registries: Registries) -> dict[str, Any]:
    """The table of a tiny vision transformer whose weights, random ones, lie in a file."""
    table = {"use": "timm", "name": "vit", "checkpoint": "vit_tiny_patch16_224", "image_size": 32, "layers": 0}
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    kind = registries.encoders["timm"]
    options = {key: value for key, value in table.items() if key not in ("use", "name")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder: Any = kind(kind.Options(**options))
        whole = encoder.network.state_dict()
    save_file({key: value.contiguous() for key, value in whole.items()}, path)
    return {**table, "weights": str(path)}


def trained(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Keys of encoders whose values differ."""
    return {key for key, value in after.items() if key.startswith("encoders.") and not torch.equal(value, before[key])}


def test_a_trainable_encoder_learns_in_the_stage_that_says_so(run: Run, said: Any) -> None:
    made = run('encoders.0.tune="trainable"', stages=BOTH, moe=None)
    aligned, tuned = weights(made, "0-align"), weights(made, "1-tune")
    assert trained(aligned, tuned) == {"encoders.patchify.projection"}
    assert "encoders.patchify.projection" in aligned  # also a checkpoint inside a run has it
    assert said.any_with("color-grid: 0 images found in the cache, 24 encoded")
    assert not said.any_with("patchify: 0 images found")  # its tokens change, so they are not cached


def test_lora_trains_its_adapters_alone_and_starts_without_effect(
    run: Run, vit: dict[str, Any], tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    lora = {**vit, "tune": "lora", "lora": {"rank": 2, "targets": ["qkv"]}}
    plain = build(tiny_recipe(encoders=[vit]), registries=registries).model
    adapted = build(tiny_recipe(encoders=[lora], stages=BOTH, moe=None), registries=registries).model
    pixels = {"vit": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(plain.encode(pixels)[0].values, adapted.encode(pixels)[0].values)
    made = run(encoders=[lora], stages=BOTH, moe=None)
    assert trained(weights(made, "0-align"), weights(made, "1-tune")) == {
        f"encoders.vit.network.blocks.0.attn.qkv.lora_{half}.default.weight" for half in "AB"
    }
    stored = load_file(str(vit["weights"]))
    kept = weights(made, "1-tune")["encoders.vit.network.blocks.0.attn.qkv.base_layer.weight"]
    assert torch.equal(kept, stored["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("tune", ["trainable", "lora"])
def test_a_finished_run_answers_with_the_encoder_that_it_trained(
    tune: str, run: Run, vit: dict[str, Any], tmp_path: Path, registries: Registries
) -> None:
    made = run(encoders=[{**vit, "tune": tune}, GRID], stages=BOTH, moe=None, export=True)
    Path(vit["weights"]).rename(tmp_path / "gone")  # a finished run needs no weight file
    try:
        assistant = load(made.path, registries=registries)
        result = evaluate_run(made.path, registries=registries, say=lambda line: None, progress=False)
    finally:
        (tmp_path / "gone").rename(vit["weights"])
    finished = {key: value for key, value in assistant.model.state_dict().items() if key.startswith("encoders.vit.")}
    assert all(torch.equal(value, finished[key]) for key, value in weights(made, "1-tune").items() if key in finished)
    before = made.path / "evaluation" / "1-tune.jsonl"
    assert result.lines() == before.read_text(encoding="utf-8")


def test_an_interrupted_run_with_a_learning_encoder_goes_on_as_if_unbroken(run: Run) -> None:
    change = 'encoders.0.tune="trainable"'
    whole = run(change, stages=BOTH, moe=None)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "tune", 3, kill)
        with pytest.raises(BaseException, match=r"^$"):
            run(change, stages=BOTH, moe=None, out="broken")
    broken = run(change, stages=BOTH, moe=None, out="broken")
    assert all(torch.equal(value, weights(broken, "1-tune")[key]) for key, value in weights(whole, "1-tune").items())
    assert curve(broken, "1-tune") == curve(whole, "1-tune")


def test_pictures_that_nobody_can_read_are_found_where_no_encoder_is_cached(
    run: Run, said: Any, own_data: dict[str, Any]
) -> None:
    Path(own_data["folder"], "00-red-left.png").write_bytes(b"not a picture")
    own_data["max_unreadable"] = 0.1
    patchify = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, "tune": "trainable"}
    run(encoders=[patchify], data=own_data, stages=BOTH, moe=None)
    assert said.any_with("LEFT OUT: 2 training and 0 test samples")


def test_a_target_that_fits_no_layer_is_told_before_anything_is_encoded(run: Run, vit: dict[str, Any]) -> None:
    lora = {**vit, "tune": "lora", "lora": {"targets": ["query"]}}
    with pytest.raises(RecipeError, match=r"'query' fits no linear layer. Those that there are end in: qkv, proj, fc1"):
        run(encoders=[lora], stages=BOTH, moe=None)


def test_an_encoder_without_weights_cannot_learn(run: Run) -> None:
    with pytest.raises(RecipeError, match="'encoders' selects no parameter"):
        run('encoders.1.tune="trainable"', stages=BOTH, moe=None)


ANYRES = {"grids": [[1, 2], [2, 1], [2, 2]]}


@pytest.fixture
def wide_data(own_data: dict[str, Any]) -> dict[str, Any]:
    """The tiny data, half of its pictures twice as wide."""
    for number, path in enumerate(sorted(Path(own_data["folder"]).glob("*.png"))):
        if number % 2:
            with Image.open(path) as picture:
                picture.resize((64, 32)).save(path)
    return own_data


@pytest.mark.parametrize("positions", ["sequential", "share_all", "share_row", "share_row_col"])
def test_a_run_with_tiles_trains_and_answers(
    positions: str, run: Run, wide_data: dict[str, Any], registries: Registries
) -> None:
    patchify = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, "tiling": ANYRES}
    made = run(
        f"positions.use={positions}", encoders=[patchify, GRID], stages=BOTH[:1], moe=None, data=wide_data, export=True
    )
    assistant = load(made.path, registries=registries)
    pictures = [Image.open(path) for path in sorted(Path(wide_data["folder"]).glob("*.png"))[:2]]
    # Base view 4; a square one fills two tiles' width best ([1, 2] comes first): 2 rows of 2 and a newline each.
    assert [assistant.processor.count_tokens([picture]) for picture in pictures] == [[4 + 2 * 3 + 8], [4 + 2 * 5 + 8]]
    answers = [str(assistant.ask(picture, "what color is the square?")) for picture in pictures]
    together = assistant.processor(images=pictures, text=[assistant.processor.prompt("what color is the square?")] * 2)
    output = assistant.model.generate(**together, max_new_tokens=64, do_sample=False)
    length = together["input_ids"].shape[1]
    texts = assistant.processor.tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
    assert [text.strip() for text in texts] == answers
    again = evaluate_run(made.path, registries=registries, say=lambda line: None, progress=False)
    assert again.lines() == (made.path / "evaluation" / "0-align.jsonl").read_text(encoding="utf-8")


def test_the_plan_counts_the_costliest_picture(
    tiny_recipe: Callable[..., Recipe], registries: Registries, wide_data: dict[str, Any]
) -> None:
    patchify = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, "tiling": ANYRES}
    plan = make_plan(tiny_recipe(encoders=[patchify, GRID], data=wide_data), registries)
    assert (plan.visual_tokens, plan.visual_size) == (22, (32, 64))
    # By row: 2 of the base view, 2 of the tiles with their newlines, 2 of the colours.
    assert plan.visual_positions == 6
    assert plan.encoders[0].grid == "2x2 + 2x4"
