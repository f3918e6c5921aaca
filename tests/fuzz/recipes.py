"""Mutated recipes: ``polyvex plan`` refuses each, or every value in the file is part of the recipe that it planned."""

import math
import os
import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomlkit

from . import tiny
from .command import polyvex
from .mutate import at, leaves, mutate_bytes, mutate_tree


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the fault (empty if there is none) of ``count`` mutants."""
    generator = random.Random(seed)
    tables = tiny.tables(tiny.data(folder / "data"))
    text = tomlkit.dumps(tables).encode()
    path = folder / "mutant.toml"
    for _ in range(count):
        if generator.random() < 0.3:
            name, content = mutate_bytes(text, generator)
        else:
            name, tree = mutate_tree(tables, generator)
            content = _written(tree)
            if content is None:  # TOML cannot express it
                name, content = mutate_bytes(text, generator)
        path.write_bytes(content)
        yield name, _fault(path)


def _written(tree: Any) -> bytes | None:
    """TOML text. Where tomlkit refuses a value, TOML has no such thing."""
    try:
        return tomlkit.dumps(tree).encode()
    except (ValueError, TypeError, RecursionError):
        return None


def _fault(path: Path) -> str:
    ended = polyvex("plan", path)
    if ended.fault:
        return f"{ended.fault}: {ended.error[-400:]}"
    if ended.refused:
        return "" if ended.error.strip() or "problem" in ended.out else "refused without a message"
    try:
        given = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"silent: accepted, although it is not TOML ({error})"
    shown = polyvex("show", path)
    if shown.fault or shown.code:
        return f"plan accepts what show refuses: {shown.error[-200:]}"
    resolved = tomllib.loads(shown.out)
    lost = [one for one in leaves(given) if not _kept(given, resolved, one)]
    return f"silent: {'.'.join(map(str, lost[0]))} is not in the resolved recipe" if lost else ""


def _kept(given: Any, resolved: Any, path: tuple[str | int, ...]) -> bool:
    """Whether the value at ``path`` stands in the resolved recipe, perhaps in its long form."""
    value = at(given, path)
    try:
        there = at(resolved, path)
    except (KeyError, IndexError, TypeError):
        return value in ({}, [])
    if isinstance(value, dict | list):
        return isinstance(there, dict | list)
    if isinstance(there, dict):  # `positions = "share_row"` is short for a table
        return there.get("use") == value
    if isinstance(value, float) and math.isnan(value):
        return isinstance(there, float) and math.isnan(there)
    if isinstance(value, bool) or isinstance(there, bool):
        return value is there
    return there in (value, os.path.abspath(value) if isinstance(value, str) and "\0" not in value else value)
