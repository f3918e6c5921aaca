"""The small data set and recipe that the fuzzers change."""

import copy
import json
from pathlib import Path
from typing import Any

from PIL import Image

COLORS = {"red": (220, 40, 40), "green": (40, 170, 70), "blue": (50, 70, 220), "yellow": (235, 210, 50)}

STAGES = [
    {"name": "align", "trains": ["connector"], "steps": 2, "batch_size": 4, "lr": 1e-3},
    {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 2, "batch_size": 4, "lr": 1e-3},
]

TABLES: dict[str, Any] = {
    "name": "tiny",
    "seed": 0,
    "encoders": [
        {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8},
        {"use": "color-grid", "name": "colors", "image_size": 32, "rows": 2, "cols": 4},
    ],
    "fusion": {"use": "mlp", "patches_per_token": 2},
    "positions": {"use": "share_row"},
    "lm": {"use": "small-llama", "hidden_size": 32, "ffn_size": 64, "layers": 2, "heads": 2, "kv_heads": 2},
    "moe": {"num_experts": 4, "layers": "dense", "router": {"use": "top_k", "k": 2}},
    "prompt": {"template": "{image} {question} "},
    "data": {"use": "jsonl", "max_unreadable": 0.1},
    "loss": {"load_balance": 0.01},
    "training": {"checkpoint_every": 2, "log_every": 1},
    "evaluation": {"batch_size": 4, "max_new_tokens": 3, "after": "last_stage"},
    "stages": STAGES,
    "ablation": {"seeds": 1, "axes": {"order": "all", "positions": ["sequential", "share_row"]}},
}


def data(folder: Path, *, pictures: int = 8) -> Path:
    """Write a data set of colored squares: one question for each picture, in both splits."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(pictures):
        color = list(COLORS)[number % 4]
        picture = Image.new("RGB", (32, 32), COLORS[color])
        picture.putpixel((number, 0), (0, 0, 0))
        picture.save(folder / f"{number}.png")
        question = {"image": f"{number}.png", "question": "what color is the square?", "answer": color, "kind": "color"}
        lines.append(json.dumps({"id": f"square-{number}", **question}) + "\n")
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def tables(folder: Path) -> dict[str, Any]:
    """The recipe as plain data, with ``folder`` as its data set."""
    found = copy.deepcopy(TABLES)
    found["data"]["folder"] = str(folder)
    return found
