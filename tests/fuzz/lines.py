"""Mutated data lines: a data set refuses each with file and line, or reads exactly what Python's ``json`` reads."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyvex.data.base import Sample
from polyvex.data.jsonl import JsonLines, JsonLinesOptions

from . import tiny
from .command import call
from .mutate import ODD_VALUES, mutate_bytes, mutate_tree

VALUES = (*ODD_VALUES, None, "cut \ud83d", "data:image/png;base64," + "A" * 5000, ["0.png", "1.png"], ["0.png", None])
"""JSON has null; a lone surrogate can be written as an escape."""

KEYS = {"id", "image", "images", "question", "answer", "answers", "kind"}


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the fault (empty if there is none) of ``count`` mutants of one line of a file."""
    generator = random.Random(seed)
    tiny.data(folder)
    path = folder / "train.jsonl"
    plain = path.read_bytes().split(b"\n")[:-1]
    for _ in range(count):
        lines = list(plain)
        place = generator.randrange(len(lines))
        if generator.random() < 0.4:
            name, lines[place] = mutate_bytes(lines[place], generator)
        else:
            name, tree = mutate_tree(json.loads(lines[place]), generator, VALUES)
            lines[place] = _written(tree, generator)
        path.write_bytes(b"\n".join(lines) + b"\n")
        yield name, _fault(path, folder)


def _written(tree: Any, generator: random.Random) -> bytes:
    text = json.dumps(tree)
    if generator.random() < 0.05:  # the same key twice
        text = text.replace("{", '{"question": "twice", ', 1)
    return text.encode()


def _fault(path: Path, folder: Path) -> str:
    samples, ended = call(lambda: list(JsonLines(JsonLinesOptions(folder=str(folder))).samples("train")))
    if ended.fault:
        return f"{ended.fault}: {ended.error[-400:]}"
    lines = enumerate(path.read_bytes().split(b"\n"), 1)
    expected = [(number, _record(line)) for number, line in lines if line.strip()]
    wrong = [number for number, record in expected if record is None]
    if ended.refused:
        if len(ended.error) > 3000:
            return f"the message has {len(ended.error)} characters"
        return "" if path.name in ended.error else f"the message does not name the file: {ended.error[:200]}"
    if wrong:
        return f"silent: line {wrong[0]} is accepted"
    pairs = zip(samples or [], expected, strict=False)
    if len(samples or []) != len(expected):
        return f"silent: {len(expected)} lines, {len(samples or [])} samples"
    changed = [number for got, (number, record) in pairs if not _same(got, record)]
    return f"silent: line {changed[0]} is not read as written" if changed else ""


def _record(line: bytes) -> dict[str, Any] | None:
    """A line as JSON, by this file's own reading; None if a strict reader must refuse it."""
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or set(record) - KEYS or "question" not in record:
        return None
    texts = [record[key] for key in ("id", "question", "answer", "kind", "image") if key in record]
    lists = [record[key] for key in ("images", "answers") if key in record]
    if not all(isinstance(one, list) for one in lists) or not ("answer" in record) ^ ("answers" in record):
        return None
    return record if all(_text(one) for one in [*texts, *(one for several in lists for one in several)]) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _text(value: object) -> bool:
    """Whether a value is text that can be stored in a file."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _same(sample: Sample, record: dict[str, Any] | None) -> bool:
    record = record or {}
    images = record.get("images", [record["image"]] if "image" in record else [])
    return (
        sample.question == record["question"]
        and list(sample.accepted) == record.get("answers", [record.get("answer")])
        and len(sample.images) == len(images)
        and all(Path(path).name == Path(one).name for path, one in zip(sample.images, images, strict=True))
        and sample.kind == record.get("kind", sample.kind)
        and sample.id == record.get("id", sample.id)
    )
