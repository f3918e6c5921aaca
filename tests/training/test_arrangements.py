"""Whole runs with reducers, separators, own positions, another place of the image, and packing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from polyvex.answer import load
from polyvex.assemble import build
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.training.stages import train

from .runs import Run, curve, weights

BOTH = [
    {"name": "align", "trains": ["connector"], "steps": 2, "batch_size": 4},
    {"name": "tune", "trains": ["connector", "lm"], "steps": 4, "batch_size": 8},
]
CHOICES = [
    ["fusion.separator=learned"],
    ["fusion.separator=text", "fusion.separator_text=' | '"],
    ["encoders.0.positions={use='stride', step=0.5}", "positions.use=share_row_col"],
    [
        "encoders.1.reduce={use='perceiver', queries=3, heads=2}",
        "encoders.1.positions={use='share_all'}",  # its queries have no rows
        "encoders.0.reduce={use='attention_pool'}",
    ],
    ["prompt.image_place=after", "positions.use=random_stride", "positions.base=common"],
    ["lm.attention=eager", 'order=["color-grid", "patchify"]'],
]


@pytest.mark.parametrize("changes", CHOICES, ids=lambda changes: changes[0])
def test_a_run_trains_is_stored_and_answers_as_before(changes: list[str], run: Run) -> None:
    made = run(*changes, stages=BOTH, moe=None, export=True)
    assistant = load(made.path)
    picture = Image.new("RGB", (32, 32), (220, 30, 30))
    batch = assistant.processor.question("what color is the square?", [picture])
    model = AutoModelForImageTextToText.from_pretrained(made.path)
    tuned = PolyvexForConditionalGeneration.from_pretrained(made.path / "stages" / "1-tune" / "model")
    parts = model.encode(batch["pixel_values"])
    cached = {name: part.values for name, part in zip(model.encoder_names, parts, strict=True)}
    batch.pop("pixel_values")
    with torch.no_grad():
        logits = [one.eval()(**batch, encoder_tokens=cached).logits for one in (model, tuned, assistant.model)]
    assert torch.equal(logits[0], logits[1])
    assert torch.allclose(logits[0], logits[2], atol=1e-5)
    wanted = "eager" if "lm.attention=eager" in changes else "sdpa"
    assert assistant.model.lm.config._attn_implementation == wanted
    before, after = weights(made, "0-align"), weights(made, "1-tune")
    connector = [key for key in before if key.startswith(("reducers.", "views.", "positions.", "fusion."))]
    assert all(not torch.equal(before[key], after[key]) for key in connector)


@pytest.mark.parametrize(
    ("changes", "tokens", "positions"),
    [
        ([], 12, 4),  # 2 rows of patchify, 2 of color-grid
        (["fusion.separator=learned"], 13, 5),
        (["positions.base=common"], 12, 2),
        (["encoders.1.reduce={use='average_pool'}"], 6, 3),  # 4 + 1 × 2 tokens
        (["encoders.0.positions={use='sequential'}"], 12, 6),
        (["positions.use=interpolate", "positions.positions=3"], 12, 3),  # 12 ids with fractions, on 3 positions
    ],
    ids=lambda one: one[0] if isinstance(one, list) and one else None,
)
def test_plan_tells_tokens_and_positions_that_the_model_has(
    changes: list[str], tokens: int, positions: int, tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    recipe = tiny_recipe(*changes)
    plan = make_plan(recipe, registries)
    assert plan.problems == []
    assert (plan.visual_tokens, plan.visual_positions) == (tokens, positions)
    built = build(recipe, registries=registries)
    batch = built.processor.question("why?", [Image.new("RGB", (32, 32))])
    assert int((batch["input_ids"] == built.processor.image_token_id).sum()) == tokens
    _, takes = built.model.positions.of_image(built.model.layout)
    assert takes == positions
    assert plan.stages[0].trainable == sum(
        parameter.numel()
        for part in (built.model.reducers, built.model.fusion, built.model.positions, built.model.views)
        for parameter in part.parameters()
    )


def test_another_reducer_order_or_scheme_encodes_nothing_again(run: Run, said: Any) -> None:
    run(stages=BOTH[:1], moe=None)
    said.clear()
    run(
        "encoders.1.reduce={use='average_pool'}",
        "encoders.0.positions={use='share_all'}",
        'order=["color-grid", "patchify"]',
        "fusion.separator=learned",
        stages=BOTH[:1],
        moe=None,
        out="other",
    )
    for name in ("color-grid", "patchify"):
        assert said.any_with(f"{name}: 24 images found in the cache, reused")


def test_packing_changes_no_result(run: Run) -> None:
    # Same samples, same steps; only the padding is less, so the losses agree but for rounding.
    plain = run(stages=BOTH, moe=None)
    packed = run("training.pack=true", stages=BOTH, moe=None, out="packed")
    for stage in ("0-align", "1-tune"):
        losses = [[line["loss"] for line in curve(made, stage)] for made in (plain, packed)]
        assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    one, other = weights(plain, "1-tune"), weights(packed, "1-tune")
    assert all(torch.allclose(one[key], other[key], atol=2e-4) for key in one)


def test_texts_cannot_be_packed_for_a_sliding_window(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path / "mistral"
    AutoConfig.for_model("mistral", vocab_size=300, num_key_value_heads=2, sliding_window=8, **small).save_pretrained(
        folder
    )
    table = {"use": "pretrained", "checkpoint": str(folder)}
    recipe = tiny_recipe("training.pack=true", lm=table, moe=None, stages=BOTH)
    (problem,) = make_plan(recipe, registries).problems
    assert "cannot be packed for MistralForCausalLM, which has a sliding window (8 tokens)" in problem
    assert make_plan(tiny_recipe(lm=table, moe=None, stages=BOTH), registries).problems == []


def test_flex_attention_does_not_train_on_a_cpu(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (problem,) = make_plan(tiny_recipe("lm.attention=flex"), registries).problems
    assert "torch has no backward pass of flex attention on a CPU" in problem
    with pytest.raises(RecipeError, match="no backward pass"):
        train(tiny_recipe("lm.attention=flex"), "/nonexistent", registries=registries, progress=False)
