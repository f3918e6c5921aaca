"""Runs and ablations written by hand, so that every word on a page has a known cause; and one really trained."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from PIL import Image

from polyvex.ablation.compare import compare_all
from polyvex.evaluation.evaluate import Answered, Evaluation
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.training.stages import train

HASH = {"old": "a" * 64, "new": "b" * 64}
LOCK = {
    "seed": 0,
    "python": "3.11.7",
    "libraries": {"torch": "9.8.7"},
    "weights_sha256": {"patchify": None, "color-grid": "c0ffee" * 10},
    "data_sha256": "d" * 64,
    "samples": 48,
    "images": 24,
    "unreadable_images": [],
}
LOAD = {"lm.model.layers.0.mlp": {"text": [0.5, 0.25, 0.25, 0.0], "patchify": [0.0, 1.0, 0.0, 0.0]}}


def answered(number: int = 0, *, right: bool = True, kind: str = "color", **changes: Any) -> Answered:
    """One answer: ``red``, where ``red`` (right) or ``blue`` was expected."""
    values: dict[str, Any] = {
        "id": f"q{number}",
        "kind": kind,
        "question": f"what is {number}?",
        "expected": "red" if right else "blue",
        "answer": "red",
        "score": float(right),
    }
    return Answered(**{**values, **changes})


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_evaluation(folder: Path, evaluation: Evaluation, load: Mapping[str, Any] | None = None) -> None:
    path = folder / "evaluation" / f"{evaluation.name}.json"
    write_json(path, {**evaluation.summary(), "expert_load": load or {}})
    path.with_suffix(".jsonl").write_text(evaluation.lines(), encoding="utf-8")


def write_stage(folder: Path, label: str, *, steps: int, done: bool = True) -> None:
    stage = folder / "stages" / label
    lines = [{"step": step, "answer_loss": 2.0 / step, "loss": 2.1 / step} for step in range(1, steps + 1)]
    if label.endswith("experts"):
        lines = [{**line, "load_balance": 1.25} for line in lines]
    stage.mkdir(parents=True)
    (stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if done:
        parts = {"fusion": {"frozen": HASH["old"]}, "lm": {"trained": HASH["old"]}}
        after = {"fusion": {"frozen": HASH["old"]}, "lm": {"trained": HASH["new"]}}
        record = {"seconds": 1.5, "trained_parameters": 1234, "hashes_before": parts, "hashes_after": after}
        write_json(stage / "done.json", {"stage": label, "steps": steps, **record})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (320, 200), (200, 30, 40)).save(path)
    return path


@pytest.fixture
def hand_run(tiny_recipe: Callable[..., Recipe], tmp_path: Path, picture: Path) -> Path:
    """A finished run of the tiny recipe: ``0-align`` was blind (1 of 2 right), ``2-experts`` has 3 of 4 right."""
    folder = tmp_path / "run"
    recipe = tiny_recipe(
        stages=[
            {"name": "language", "trains": ["lm"], "steps": 3, "batch_size": 4, "images": False},
            {"name": "tune", "trains": ["connector", "lm"], "steps": 3, "batch_size": 4},
            {"name": "experts", "trains": ["lm.moe"], "steps": 3, "batch_size": 4, "upcycle": True},
        ]
    )
    folder.mkdir()
    (folder / "recipe.toml").write_text(tomlkit.dumps(recipe.dump()), encoding="utf-8")
    write_json(folder / "lock.json", LOCK)
    write_json(folder / "config.json", {})
    shown: dict[str, Any] = {
        "images": (str(picture),),
        "image_sha256": (hashlib.sha256(picture.read_bytes()).hexdigest(),),
    }
    blind = [answered(0, **shown), answered(1, right=False, **shown)]
    seen = [answered(number, right=number != 3, kind="ab"[number % 2], **shown) for number in range(4)]
    for label in ("0-language", "1-tune", "2-experts"):
        write_stage(folder, label, steps=3)
    write_evaluation(folder, Evaluation(name="0-language", metric="exact_match", answers=blind, images=False))
    write_evaluation(folder, Evaluation(name="1-tune", metric="exact_match", answers=seen))
    write_evaluation(folder, Evaluation(name="2-experts", metric="exact_match", answers=seen), LOAD)
    return folder


def group(label: str, scores: list[list[float]], *, positions: int = 4, first_seed: int = 0) -> dict[str, Any]:
    """A cell of one axis, ``positions``, with a list of scores for each of its seeds."""
    return {
        "label": f"positions={label}",
        "values": {"positions": label},
        "seeds": list(range(first_seed, first_seed + len(scores))),
        "scores": [{f"q{index}": score for index, score in enumerate(one)} for one in scores],
        "visual_tokens": 12,
        "positions": positions,
    }


def write_ablation(folder: Path, groups: list[dict[str, Any]], failed: dict[str, str] | None = None) -> Path:
    """An ablation directory as the runner leaves it."""
    cells = [
        {"id": f"{one['values']['positions']}-{seed}", "label": one["label"], "seed": seed, "values": one["values"]}
        for one in groups
        for seed in one["seeds"]
    ]
    index = {
        "axes": {"positions": [one["values"]["positions"] for one in groups]},
        "cells": cells,
        "results": [result.as_dict() for result in compare_all([one for one in groups if one["scores"][0]])],
        "failed": failed or {},
    }
    write_json(folder / "ablation.json", index)
    (folder / "base.toml").write_text('name = "tiny"\nseed = 0\n', encoding="utf-8")
    for cell in cells:
        write_json(folder / "cells" / cell["id"] / "result.json", {**cell, "accuracy": 0.5})
    return folder


@pytest.fixture(scope="session")
def real_run(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny recipe, trained. Copy it before you change a file."""
    folder = tmp_path_factory.mktemp("real")
    recipe = tiny_recipe("stages.align.images=true")
    train(recipe, folder / "run", registries=registries, cache=folder / "cache", say=lambda _: None, progress=False)
    return folder / "run"
