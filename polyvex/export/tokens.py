"""The tokenizer of a run beside its language model: without tokens that the embeddings have no row for."""

import json
from pathlib import Path
from typing import Any

from polyvex.errors import ParityError

PROBE = "The 2 red squares, at 10.5 % – naïve?\n  Two\tlines: x = {y: [1, 23, 456]}; 日本 🙂"
"""Text of many kinds, which the tokenizer must split as before."""


def left_out(tokenizer: Any, rows: int) -> dict[int, str]:
    """Added tokens, by id, that embeddings of ``rows`` rows lack; ``<image>`` is one if the vocabulary was full."""
    return {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if number >= rows}


def tokenizer_reasons(tokenizer: Any, rows: int) -> list[str]:
    """Why a tokenizer cannot go with embeddings of ``rows`` rows, each with a way out; none if it can."""
    added = left_out(tokenizer, rows)
    named = {str(value) for key, value in tokenizer.special_tokens_map.items() if not key.startswith(("add", "extra"))}
    needed = [token for number, token in added.items() if token in named]
    needed += [token for token, number in tokenizer.get_vocab().items() if number >= rows and number not in added]
    found = []
    if needed:
        found.append(
            f"the tokenizer has tokens that the embeddings' {rows} rows lack: {', '.join(sorted(needed)[:5])}. Train "
            f"with the tokenizer that belongs to the language model"
        )
    if added and not tokenizer.is_fast:
        found.append(
            f"{', '.join(added.values())} cannot be taken out of {type(tokenizer).__name__}, and the embeddings have "
            f"no row for it. Train with a checkpoint that has a tokenizer.json"
        )
    return found


def save_tokenizer(tokenizer: Any, folder: Path, rows: int) -> list[str]:
    """Write the tokenizer; return the tokens that were left out."""
    added = left_out(tokenizer, rows)
    tokenizer.save_pretrained(folder)
    if added:
        _edit(folder / "tokenizer.json", lambda told: _without_ids(told, added))
        _edit(folder / "tokenizer_config.json", lambda told: _without_texts(told, added))
    return list(added.values())


def _without_ids(told: dict[str, Any], gone: dict[int, str]) -> None:
    told["added_tokens"] = [token for token in told["added_tokens"] if token["id"] not in gone]


def _without_texts(told: dict[str, Any], gone: dict[int, str]) -> None:
    texts = set(gone.values())
    for key in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(told.get(key), list):
            told[key] = [token for token in told[key] if token not in texts]
        elif isinstance(told.get(key), dict):
            told[key] = {name: token for name, token in told[key].items() if token not in texts}
    if "added_tokens_decoder" in told:
        kept = told["added_tokens_decoder"].items()
        told["added_tokens_decoder"] = {number: token for number, token in kept if int(number) not in gone}


def _edit(path: Path, change: Any) -> None:
    told = json.loads(path.read_text(encoding="utf-8"))
    change(told)
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")


def check_tokenizer(tokenizer: Any, folder: Path, rows: int) -> None:
    """Load a tokenizer back as anybody would, and compare it with the one that was written.

    Raises:
        ParityError: if it splits text otherwise, or has tokens that embeddings of ``rows`` rows lack.
    """
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if (got := found.encode(PROBE)) != (expected := tokenizer.encode(PROBE)):
        raise ParityError(
            f"the exported tokenizer, which transformers loads as {type(found).__name__}, splits a text into {got[:8]} "
            f"…, expected {expected[:8]} … as {type(tokenizer).__name__} does. It was taken away again; report it"
        )
    if beyond := sorted(token for token, number in found.get_vocab().items() if number >= rows):
        raise ParityError(
            f"the exported tokenizer has {', '.join(beyond[:5])}, expected nothing beyond the embeddings' {rows} rows. "
            f"It was taken away again; please report it"
        )
