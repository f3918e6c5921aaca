"""Mutations of plain data and of bytes, each from a seeded generator."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

Path = tuple[str | int, ...]


def deep(levels: int) -> list[Any]:
    """A list in a list, ``levels`` deep."""
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


ODD_VALUES: tuple[Any, ...] = (
    True,
    False,
    0,
    -1,
    1,
    10**4,
    2**63,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.5,
    float("nan"),
    float("inf"),
    1e-320,
    "",
    " ",
    "None",
    "4",
    "patchify",
    "small-llama",
    "../../etc/passwd",
    "/dev/zero",
    "a\x00b",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "=cmd()",
    "ü" * 300,
    "x" * 100_000,
    [],
    [None],
    ["red", "Red"],
    {},
    {"use": "mlp"},
    {"a": {"b": [1, 2]}},
    deep(200),
)
"""Values that a person or another tool may write by mistake or out of malice; ``None`` where the format has it."""


def leaves(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Paths to every value inside ``tree``, containers included."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def at(tree: Any, path: Path) -> Any:
    """The value at ``path``."""
    for key in path:
        tree = tree[key]
    return tree


def mutate_tree(tree: dict[str, Any], random: random.Random, values: tuple[Any, ...] = ODD_VALUES) -> tuple[str, Any]:
    """One mutation of a copy of ``tree``: its name, and the copy."""
    changed = copy.deepcopy(tree)
    path = random.choice(list(leaves(changed)))
    *to, key = path
    parent: Any = at(changed, tuple(to))
    where = ".".join(map(str, path))
    kind = random.choice(("replace", "replace", "replace", "delete", "misspell", "unknown", "swap", "move"))
    if kind == "delete":
        del parent[key]
    elif kind == "misspell" and isinstance(key, str):
        parent[_misspelt(key, random)] = parent.pop(key)
    elif kind == "unknown" and isinstance(parent, dict):
        parent["unknown_key"] = copy.deepcopy(random.choice(values))
    elif kind in ("swap", "move"):
        other = random.choice(list(leaves(tree)))
        parent[key] = copy.deepcopy(at(tree, other))
        where += f" by {'.'.join(map(str, other))}"
    else:
        parent[key] = copy.deepcopy(random.choice(values))
    return f"{kind} {where}", changed


def _misspelt(key: str, random: random.Random) -> str:
    place = random.randrange(len(key))
    shorter = key[:place] + key[place + 1 :]
    return random.choice((shorter, key.upper(), key + "s", f" {key}", key.replace("_", "-") + "_"))


def mutate_bytes(content: bytes, random: random.Random) -> tuple[str, bytes]:
    """One mutation of ``content``: its name, and the result, which always differs."""
    name, change = random.choice(BYTE_MUTATIONS)
    changed = change(content, random)
    return (name, changed) if changed != content else ("empty", b"" if content else b"\x00")


def _flip(content: bytes, random: random.Random) -> bytes:
    if not content:
        return b"\x01"
    place, bit = random.randrange(len(content)), 1 << random.randrange(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def _cut(content: bytes, random: random.Random) -> bytes:
    return content[: random.randrange(len(content) or 1)]


def _zero_block(content: bytes, random: random.Random) -> bytes:
    start = random.randrange(len(content) or 1)
    size = min(random.choice((1, 16, 512)), len(content) - start)
    return content[:start] + b"\x00" * size + content[start + size :]


def _insert(content: bytes, random: random.Random) -> bytes:
    place = random.randrange(len(content) + 1)
    added = random.choice((b"\x00", b"\xff", b"\xed\xa0\xbd", b"null", b"\n", b"[" * 5000))
    return content[:place] + added + content[place:]


def _repeat_block(content: bytes, random: random.Random) -> bytes:
    start = random.randrange(len(content) or 1)
    block = content[start : start + 64]
    return content[: start + len(block)] + block + content[start + len(block) :]


def _append(content: bytes, random: random.Random) -> bytes:
    return content + random.choice((b"\x00" * 64, b"{}", b"null\n", b"garbage"))


def _empty(content: bytes, random: random.Random) -> bytes:
    return b""


BYTE_MUTATIONS: tuple[tuple[str, Callable[[bytes, random.Random], bytes]], ...] = (
    ("flip a bit", _flip),
    ("flip a bit", _flip),
    ("cut", _cut),
    ("zero a block", _zero_block),
    ("insert", _insert),
    ("repeat a block", _repeat_block),
    ("append", _append),
    ("empty", _empty),
)
