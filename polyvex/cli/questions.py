"""Compose a recipe by asking, one choice at a time."""

import re
from pathlib import Path

from polyvex.cli.output import echo, prompt
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry
from polyvex.recipe.compose import MOE_CHOICES, Choices
from polyvex.recipe.schema import NAME


def ask_choices(registries: Registries) -> Choices:
    """Ask for each part; Enter takes the choice in brackets."""
    return Choices(
        encoders=_encoders(registries),
        fusion=_one("fusion", registries.fusions, "mlp"),
        positions=_one("position scheme", registries.position_schemes, "sequential"),
        lm=_one("language model", registries.language_models, "small-llama", free="or a directory, or owner/name"),
        moe=_word("experts in which layers", MOE_CHOICES, "sparse"),
        data=_one("data set", registries.datasets, _first(registries.datasets), free="or a folder of .jsonl files"),
        name=_name(),
    )


def ask_file(name: str) -> Path:
    """Where to write the recipe; a file that is there is not overwritten."""
    while True:
        path = Path(prompt("file to write", default=f"{name}.toml"))
        if not path.exists():
            return path
        echo(f"{path} exists; choose another file")


def _name() -> str:
    while True:
        given = prompt("name of the recipe", default="my-recipe")
        if re.fullmatch(NAME, given):
            return given
        echo("a name has small letters, digits, dots, dashes and underscores, and begins with a letter or digit")


def _encoders(registries: Registries) -> list[str]:
    _print(registries.encoders)
    while True:
        given = prompt("encoders, in order, with spaces between")
        names = given.replace(",", " ").split()
        unknown = [name for name in names if name not in registries.encoders]
        if names and not unknown:
            return names
        echo(f"unknown: {', '.join(unknown) or 'nothing given'}. Known: {', '.join(registries.encoders.names())}")


def _one(word: str, registry: Registry, default: str, *, free: str = "") -> str:
    _print(registry)
    while True:
        given = prompt(f"{word} {free}".strip(), default=default)
        if given in registry or (free and Path(given).is_dir()) or ("owner/name" in free and "/" in given):
            return given
        echo(f"unknown {word} '{given}'. Known: {', '.join(registry.names())}")


def _word(question: str, words: tuple[str, ...], default: str) -> str:
    while True:
        given = prompt(f"{question} ({', '.join(words)})", default=default)
        if given in words:
            return given
        echo(f"expected one of {', '.join(words)}")


def _first(registry: Registry) -> str:
    names = [name for name in registry.names() if name != "jsonl"]
    return names[0] if names else "jsonl"


def _print(registry: Registry) -> None:
    for entry in registry:
        echo(f"  {entry.name}: {entry.component.summary}")
