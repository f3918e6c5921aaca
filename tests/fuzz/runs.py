"""Mutated runs: each command refuses a run with a changed file, or gives what it gave before the change."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import tomlkit

from . import tiny
from .command import Ended, polyvex
from .mutate import mutate_bytes

ODD_RECORDS = (b"null\n", b"[]\n", b"{}\n", b'"text"\n', b"1\n", b'{"a": ' * 3000, b"\xff\xfe", b'{"version": 10000}\n')


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the fault (empty if there is none) of ``count`` runs with one file changed."""
    generator = random.Random(seed)
    whole, picture = folder / "whole", folder / "data" / "0.png"
    recipe = folder / "tiny.toml"
    recipe.write_text(tomlkit.dumps(tiny.tables(tiny.data(folder / "data"))), encoding="utf-8")
    trained = polyvex("train", recipe, "--out", whole, "--quiet")
    if trained.fault or trained.code:
        yield "the run itself", trained.error
        return
    expected = {command: _answer(command, whole, picture) for command in COMMANDS}
    for number in range(count):
        run = folder / f"run-{number}"
        shutil.copytree(whole, run)
        path = generator.choice(sorted(one for one in run.rglob("*") if one.is_file() and one.name != ".busy"))
        name = _change(path, generator)
        for command in COMMANDS:
            fault = _fault(_answer(command, run, picture), expected[command], run)
            yield f"{name} of {path.relative_to(run)}, {command}", fault
        shutil.rmtree(run)


COMMANDS = ("ask", "eval", "report")


def _answer(command: str, run: Path, picture: Path) -> Ended:
    if command == "ask":
        return polyvex("ask", run, picture, "what color is the square?")
    if command == "eval":
        return polyvex("eval", run, "--limit", 2, "--json", "--quiet")
    return polyvex("report", run)


def _change(path: Path, generator: random.Random) -> str:
    kind = generator.random()
    if kind < 0.15:
        path.unlink()
        return "delete"
    if kind < 0.4 and path.suffix in (".json", ".jsonl", ".toml"):
        path.write_bytes(generator.choice(ODD_RECORDS))
        return "replace"
    name, content = mutate_bytes(path.read_bytes(), generator)
    path.write_bytes(content)
    return name


def _fault(ended: Ended, expected: Ended, run: Path) -> str:
    if ended.fault:
        return f"{ended.fault}: {ended.error[-400:]}"
    if ended.refused:
        return "" if ended.error.strip() else "refused without a message"
    before = expected.out.replace(str(run.with_name("whole")), str(run))
    said = ended.error.replace(str(run), "") != expected.error.replace(str(run.with_name("whole")), "")
    return "" if ended.out == before or said else f"silent: {ended.out[:200]} instead of {before[:200]}"
