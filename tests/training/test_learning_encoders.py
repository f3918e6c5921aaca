"""Whole runs of encoders that learn beside ones that are cached, on images of all shapes and in tiles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from polyvex.answer import load
from polyvex.assemble import build
from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    normalize,
    resize_square,
)
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import Recipe, parse_recipe
from polyvex.rundir import RunDirectory
from polyvex.tokens import Grid, TokenShape, VisualTokens
from polyvex.training.evaluate import evaluate_run
from polyvex.training.parts import freeze_all_but, selected
from polyvex.training.stages import train

from .runs import Killed, curve, interrupt, kill

SIZES = ((32, 32), (100, 30), (31, 97), (64, 64), (40, 20))
RATES = {"lr": 1e-2, "batch_size": 4}
STAGES: list[dict[str, Any]] = [
    {"name": "align", "trains": ["connector"], "steps": 2, **RATES},
    {"name": "tune", "trains": ["connector", "encoders", "lm"], "steps": 4, **RATES},
    {"name": "experts", "trains": ["lm.moe"], "steps": 2, "upcycle": True, **RATES},
]
LORA = {"use": "small", "tune": "lora", "lora": {"rank": 2}}
PATCHES = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8}
CHOICES: dict[str, list[dict[str, Any]]] = {
    "adapters on tiles": [{**LORA, "tiling": {}}, PATCHES],
    "whole on a fixed grid": [PATCHES, {"use": "small", "tune": "trainable", "tiling": {"grids": [[1, 2]]}}],
    "both beside cached tiles": [
        {**LORA, "name": "a"},
        {"use": "small", "tune": "trainable"},
        {**PATCHES, "tiling": {}},
    ],
}


class Small(VisionEncoder):
    """Two linear layers and a norm over four patches; its constructor draws random numbers, as most do."""

    Options: ClassVar[type[EncoderOptions]] = EncoderOptions
    summary = "small"

    def __init__(self, options: EncoderOptions):
        super().__init__(options)
        self.first, self.norm, self.last = nn.Linear(768, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)

    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        return EncoderFacts(
            shape=TokenShape(tokens=4, dim=8, grid=Grid(rows=2, cols=2)),
            image_size=(32, 32),
            parameters=769 * 8 + 2 * 8 + 9 * 8,
            license=License(name="MIT", commercial=True),
            source="nobody",
        )

    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        return WeightsPlace(path=None, install="nothing", needed=False)

    def load_pretrained(self) -> WeightsReport:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return WeightsReport(source="seed", sha256="0" * 64, loaded=[name for name, _ in self.named_parameters()])

    def transform(self, image: Image.Image) -> Tensor:
        return normalize(resize_square(image, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def forward(self, pixels: Tensor) -> VisualTokens:
        patches = rearrange(pixels, "n c (r h) (k w) -> n (r k) (c h w)", h=16, w=16)
        normed = self.norm(self.first(patches).transpose(1, 2)).transpose(1, 2)
        return VisualTokens.on_grid(self.last(normed.relu()), Grid(rows=2, cols=2))


class Plugin:
    @hookimpl
    def register_encoders(self) -> dict[str, type[VisionEncoder]]:
        return {"small": Small}


@pytest.fixture(scope="module")
def small() -> Registries:
    return load_registries(extra={"small": Plugin()})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``jsonl`` data set: JPEGs of five shapes, some turned by EXIF; every third question is about two of them."""
    folder = tmp_path_factory.mktemp("shapes")
    for split, count in (("train", 9), ("test", 5)):
        records = []
        for number in range(count):
            width, height = SIZES[number % 5]
            noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            exif = Image.Exif()
            exif[274] = (1, 6, 3, 8)[number % 4]
            Image.fromarray(noise).save(folder / f"{split}{number}.jpg", exif=exif)
            images = [f"{split}{number}.jpg", *([f"{split}{number - 1}.jpg"] if number % 3 == 2 else [])]
            answer = ("red", "green")[number % 2]
            records.append({"id": f"{split}{number}", "images": images, "question": "what color?", "answer": answer})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return folder


Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recipe(tiny_tables: Callable[[], dict[str, Any]], small: Registries, pictures: Path) -> Make:
    """A function from encoders' tables to the tiny recipe with these and with room for tiles."""

    def make(encoders: list[dict[str, Any]], *overrides: str, **tables: Any) -> Recipe:
        data = {**tiny_tables(), "stages": STAGES, "encoders": encoders, **tables}
        data["data"] = {"use": "jsonl", "folder": str(pictures)}
        changes = ["lm.max_positions=1024", "positions.use=share_row_col", *overrides]
        return parse_recipe({k: v for k, v in data.items() if v is not None}, overrides=changes, registries=small)

    return make


def trained(recipe: Recipe, out: Path, registries: Registries) -> RunDirectory:
    return train(recipe, out, registries=registries, say=lambda _: None, progress=False)


def answers(run: RunDirectory) -> dict[str, str]:
    lines = (run.path / "evaluation" / "2-experts.jsonl").read_text(encoding="utf-8").splitlines()
    return {one["id"]: one["answer"] for one in map(json.loads, lines)}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_finished_run_holds_what_was_trained_and_answers_as_before(
    choice: str, recipe: Make, small: Registries, pictures: Path, tmp_path: Path
) -> None:
    run = trained(recipe(CHOICES[choice]), tmp_path / "run", small)
    align, tune = (
        load_file(run.path / "stages" / name / "model" / "model.safetensors") for name in ("0-align", "1-tune")
    )
    moved = {name for name in align if name.startswith("encoders.") and not torch.equal(align[name], tune[name])}
    learning = [table for table in CHOICES[choice] if table.get("tune")]
    assert {name.split(".")[1] for name in moved} == {table.get("name", table["use"]) for table in learning}
    adapters = {table.get("name", "small") for table in learning if table["tune"] == "lora"}
    assert all("lora_" in name for name in moved if name.split(".")[1] in adapters)
    last, final = (
        load_file(run.path / "stages/2-experts/model/model.safetensors"),
        load_file(run.path / "model.safetensors"),
    )
    assert all(torch.equal(final[name], value) for name, value in last.items())
    before = answers(run)
    again = evaluate_run(run.path, registries=small, say=lambda _: None, progress=False)
    assert {one.id: one.answer for one in again.answers} == before
    assistant = load(run.path, registries=small)
    for record in map(json.loads, (pictures / "test.jsonl").read_text(encoding="utf-8").splitlines()):
        shown = [str(pictures / name) for name in record["images"]]
        assert assistant.ask(shown, record["question"], max_new_tokens=3).text == before[record["id"]]


@pytest.mark.parametrize("choice", CHOICES)
def test_stopped_while_encoders_learn_it_goes_on_to_the_same_log(
    choice: str, recipe: Make, small: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(CHOICES[choice])
    whole = trained(chosen, tmp_path / "whole", small)
    with monkeypatch.context() as patch:
        interrupt(patch, "tune", 3, kill)
        with pytest.raises(Killed):
            trained(chosen, tmp_path / "run", small)
    run = trained(chosen, tmp_path / "run", small)
    for name in ("1-tune", "2-experts"):
        logs = [[{k: v for k, v in line.items() if "loss" in k} for line in curve(one, name)] for one in (whole, run)]
        assert logs[0] == logs[1]


def test_accumulated_passes_train_an_encoder_as_one_large_pass(recipe: Make, small: Registries, tmp_path: Path) -> None:
    runs = []
    for accumulate in (1, 2):
        stages = [{**STAGES[1], "accumulate": accumulate}]
        chosen = recipe(CHOICES["adapters on tiles"], stages=stages, moe=None, evaluation={"after": "never"})
        runs.append(trained(chosen, tmp_path / str(accumulate), small))
    losses = [[line["loss"] for line in curve(run, "0-tune")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("tune", ["trainable", "lora"])
def test_a_stage_of_encoders_alone_goes_through_a_batch_without_images(
    tune: str, recipe: Make, small: Registries
) -> None:
    chosen = recipe([{"use": "small", "tune": tune}, PATCHES], stages=[{**STAGES[1], "trains": ["encoders"]}], moe=None)
    built = build(chosen, registries=small, texts=["what?"])
    freeze_all_but(built.model, selected(built.model, ["encoders"]))
    ids = torch.tensor([[5, 6, 7]])
    built.model.train()(ids, labels=ids).loss.backward()
    gradients = [one.grad for one in built.model.parameters() if one.requires_grad]
    assert gradients
    assert all(one is not None and not one.any() for one in gradients)


def test_a_run_starts_alike_whether_an_encoder_learns_or_not(recipe: Make, small: Registries) -> None:
    # Else two runs that differ in tune alone would differ in what they start from.
    starts = []
    for tune in ("frozen", "trainable", "lora"):
        stage = {**STAGES[1], "trains": ["connector", *([] if tune == "frozen" else ["encoders"])]}
        chosen = recipe([{"use": "small", "tune": tune}], stages=[stage], moe=None)
        model = build(chosen, registries=small, texts=["what?"]).model.eval()
        processor = build(chosen, registries=small, texts=["what?"]).processor
        inputs = processor.question("what?", [Image.new("RGB", (40, 30), "red")])
        with torch.no_grad():
            starts.append(model(**inputs).logits)
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])
