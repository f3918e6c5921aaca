"""Fixtures that every test may use: plugins, a tiny data set, a tiny recipe, a cache of one's own.

Everything is small enough that a whole training run of the tiny recipe takes about a second on one core.

============================  ==========================================================================================
``registries``                built-in and installed components (``patchify`` and ``color-grid`` among them)
``tiny_data``                 folder of the ``jsonl`` data set: 24 pictures, ``train.jsonl`` and ``test.jsonl``
``tiny_tables``               function → the tiny recipe as plain data, to be changed at will
``tiny_recipe``               function → :class:`Recipe`; takes ``"a.b=c"`` changes and whole tables by keyword
``tiny_recipe_file``          the tiny recipe as a TOML file in a folder of this test
``earlier_run``               folder of a run of the tiny recipe, its three stages finished, to start others from
``cache_folder``              empty token cache of this test; ``POLYVEX_CACHE`` points at it in every test
============================  ==========================================================================================
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may wait for the network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("POLYVEX_DISABLE_PLUGINS", None)

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import torch
from PIL import Image, ImageDraw

from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import Recipe, parse_recipe

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
SIDES = {"left": (2, 8, 17, 23), "right": (14, 8, 29, 23)}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests share their cores, and one thread adds floats in one order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def registries() -> Registries:
    """The built-in components and those of the installed plugins."""
    return load_registries()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a ``jsonl`` data set: 24 pictures of 32 × 32, each a coloured square at the left or at the right.

    ``train.jsonl`` asks two questions (kinds ``color`` and ``side``) of each of 18 pictures, ``test.jsonl`` of 6.
    The bytes are the same in every session, and the folder is shared: copy it before you change a file.
    """
    folder = tmp_path_factory.mktemp("tiny_data")
    records: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for number in range(24):
        color = list(COLORS)[number % 4]
        side = list(SIDES)[number // 4 % 2]
        picture = Image.new("RGB", (32, 32), (number * 5, number * 5, number * 5))
        ImageDraw.Draw(picture).rectangle(SIDES[side], fill=COLORS[color])
        name = f"{number:02}-{color}-{side}.png"
        picture.save(folder / name)
        split = "train" if number < 18 else "test"
        asked = (("color", "what color is the square?", color), ("side", "where is the square?", side))
        records[split] += [
            {"id": f"{number}-{kind}", "image": name, "question": question, "answer": answer, "kind": kind}
            for kind, question, answer in asked
        ]
    for split, lines in records.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_tables(tiny_data: Path) -> Callable[[], dict[str, Any]]:
    """A function that returns the tiny recipe as plain data, a fresh copy each time.

    Two encoders (4 tokens on 2 × 2, 8 tokens on 2 × 4), ``mlp``, ``share_row``, a Llama of two layers 32 wide
    with a vocabulary of 300, experts (two of four work), stages ``align``, ``tune``, ``experts`` of 3 steps.
    """
    tables: dict[str, Any] = {
        "name": "tiny",
        "seed": 0,
        "encoders": [
            {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8},
            {"use": "color-grid", "image_size": 32, "rows": 2, "cols": 4},
        ],
        "fusion": {"use": "mlp"},
        "positions": {"use": "share_row"},
        "lm": {
            "use": "small-llama",
            "hidden_size": 32,
            "ffn_size": 64,
            "layers": 2,
            "heads": 2,
            "kv_heads": 2,
            "vocab_size": 300,
            "max_positions": 128,
        },
        "moe": {"num_experts": 4, "layers": "sparse", "router": {"use": "top_k", "k": 2}},
        "data": {"use": "jsonl", "folder": str(tiny_data)},
        "training": {"checkpoint_every": 2, "log_every": 1},
        "evaluation": {"batch_size": 4, "max_new_tokens": 3},
        "stages": [
            {"name": "align", "trains": ["connector"], "steps": 3, "batch_size": 4},
            {"name": "tune", "trains": ["connector", "lm"], "steps": 3, "batch_size": 4},
            {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 3, "batch_size": 4},
        ],
    }
    return lambda: copy.deepcopy(tables)


@pytest.fixture(scope="session")
def tiny_recipe(tiny_tables: Callable[[], dict[str, Any]], registries: Registries) -> Callable[..., Recipe]:
    """A function that returns the tiny recipe, checked, with the changes that it is given.

    ``tiny_recipe("positions.use=share_all", stages=[…])``: positional arguments are written as for ``--set``;
    keywords replace a whole table, or take it out where they are None.
    """

    def make(*overrides: str, **tables: Any) -> Recipe:
        data = {key: value for key, value in {**tiny_tables(), **tables}.items() if value is not None}
        return parse_recipe(data, overrides=overrides, registries=registries)

    return make


@pytest.fixture
def tiny_recipe_file(tiny_tables: Callable[[], dict[str, Any]], tmp_path: Path) -> Path:
    """The tiny recipe as a TOML file in a folder of this test."""
    path = tmp_path / "tiny.toml"
    path.write_text(tomlkit.dumps(tiny_tables()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def earlier_run(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a run of the tiny recipe: ``align`` and ``tune`` are dense, ``experts`` is sparse. Shared: copy it."""
    from polyvex.training.stages import train

    folder = tmp_path_factory.mktemp("earlier")
    train(
        tiny_recipe("evaluation.after=never"),
        folder / "run",
        registries=registries,
        cache=folder / "cache",
        say=lambda _: None,
        progress=False,
        export=False,
    )
    return folder / "run"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folder of this test for cached tokens. ``POLYVEX_CACHE`` points at it, so no test touches another cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("POLYVEX_CACHE", str(folder))
    return folder
