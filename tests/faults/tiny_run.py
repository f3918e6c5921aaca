"""The tiny run that is killed: two stages, experts, evaluations and a finished model, in about a second."""

from pathlib import Path
from typing import Any

from PIL import Image

from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe, parse_recipe

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}


def write_data(folder: Path) -> None:
    """Write a ``jsonl`` data set of four pictures, one question each; two of them are the test split."""
    folder.mkdir(parents=True)
    lines = []
    for name, color in COLORS.items():
        Image.new("RGB", (8, 8), color).save(folder / f"{name}.png")
        lines.append(f'{{"id": "{name}", "image": "{name}.png", "question": "color?", "answer": "{name}"}}\n')
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "test.jsonl").write_text("".join(lines[:2]), encoding="utf-8")


def tiny_recipe(data: Path, registries: Registries) -> Recipe:
    """A recipe whose windows of the log do not end where its checkpoints are saved."""
    lm: dict[str, Any] = {"hidden_size": 8, "ffn_size": 8, "layers": 1, "heads": 1, "kv_heads": 1, "vocab_size": 300}
    stage = {"steps": 3, "batch_size": 2, "warmup": 1}
    tables: dict[str, Any] = {
        "name": "killed",
        "seed": 0,
        "encoders": [{"use": "patchify", "image_size": 8, "patch_size": 8, "dim": 4}],
        "fusion": {"use": "mlp"},
        "positions": {"use": "share_row"},
        "lm": {"use": "small-llama", "max_positions": 64, **lm},
        "moe": {"num_experts": 2, "layers": "dense", "router": {"use": "top_k", "k": 1}},
        "data": {"use": "jsonl", "folder": str(data)},
        "training": {"checkpoint_every": 1, "log_every": 2},
        "evaluation": {"batch_size": 1, "max_new_tokens": 2},
        "stages": [
            {"name": "tune", "trains": ["connector", "lm"], **stage},
            {"name": "experts", "trains": ["lm.moe"], "upcycle": True, **stage},
        ],
    }
    return parse_recipe(tables, registries=registries)
