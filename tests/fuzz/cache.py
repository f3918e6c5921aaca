"""Mutated token caches: tokens are those that were written, or encoded again, or refused; never others."""

import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from polyvex.cache.encode import fill_cache
from polyvex.hooks.manager import load_registries
from polyvex.recipe import parse_recipe
from polyvex.recipe.samples import read_split

from . import tiny
from .command import call
from .mutate import mutate_bytes


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the fault (empty if there is none) of ``count`` caches with one file changed."""
    generator = random.Random(seed)
    registries = load_registries()
    recipe = parse_recipe(tiny.tables(tiny.data(folder / "data")), registries=registries)
    samples = read_split(recipe, registries, "train")
    paths = [sample.images[0] for sample in samples]

    def tokens(root: Path) -> dict[str, torch.Tensor]:
        filled, _ = fill_cache(recipe, registries, samples, folder=root, progress=False)
        return {name: one.clone() for name, one in filled.tokens(paths).items()}

    expected = tokens(folder / "whole")
    for number in range(count):
        root = folder / f"cache-{number}"
        shutil.copytree(folder / "whole", root)
        path = generator.choice(sorted(one for one in root.rglob("*") if one.is_file()))
        if generator.random() < 0.2:
            name = "delete"
            path.unlink()
        else:
            name, content = mutate_bytes(path.read_bytes(), generator)
            path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, ended = call(lambda root=root: tokens(root))
        if ended.fault:
            fault = f"{ended.fault}: {ended.error[-400:]}"
        elif found is None:
            fault = "" if str(root) in ended.error else f"the message does not name the file: {ended.error[:200]}"
        else:
            same = found.keys() == expected.keys() and all(torch.equal(found[one], expected[one]) for one in expected)
            fault = "" if same else "silent: other tokens than those that were written"
        yield f"{name} of {path.name}", fault
        shutil.rmtree(root)
