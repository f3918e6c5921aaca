"""Which parameters a stage trains, by part or pattern, and proof that the others did not change."""

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from polyvex.adapters import ADAPTER, PARTIAL
from polyvex.errors import RecipeError, TrainingError
from polyvex.moe.record import routers


def part_of(name: str, experts: Sequence[str]) -> str:
    """The finest named part that a parameter belongs to; ``experts`` are the names of MoE layers."""
    if name.startswith(("reducers.", "fusion.", "positions.", "views.")):
        return "connector"
    if name.startswith("encoders."):
        return ".".join(name.split(".")[:2])
    if name.startswith("lm."):
        for mark, part in ((PARTIAL, "lm.partial_lora"), (f".{ADAPTER}", "lm.lora")):
            if mark in name:
                return part
    if any(name.startswith(f"{layer}.") for layer in experts):
        return "lm.moe"
    for mark, part in (
        (".embed_tokens.", "embeddings"),
        (".self_attn.", "attention"),
        (".mlp.", "ffn"),
        ("lm.lm_head.", "head"),
    ):
        if mark in name:
            return f"lm.{part}"
    return "lm"


def selected(model: nn.Module, trains: Sequence[str]) -> dict[str, list[str]]:
    """For each entry of ``trains``, the parameters that it selects; a parameter counts for the first that fits.

    Raises:
        RecipeError: if an entry selects nothing, or a pattern selects weights that are frozen.
    """
    experts = expert_layers(model)
    found: dict[str, list[str]] = {entry: [] for entry in trains}
    for name, _ in model.named_parameters():
        part = part_of(name, experts)
        for entry in trains:
            pattern = "*" in entry and fnmatch.fnmatchcase(name, entry)
            if part == entry or part.startswith(f"{entry}.") or pattern:
                if not _may_train(model, name):
                    if pattern:
                        raise RecipeError([_FROZEN.format(entry=entry, name=name)])
                    continue
                found[entry].append(name)
                break
    if empty := [entry for entry, names in found.items() if not names]:
        raise RecipeError(
            [f"trains: '{entry}' selects no parameter of this model; {_ways(model, entry)}" for entry in empty]
        )
    return found


_FROZEN = (
    "trains: the pattern '{entry}' selects {name}, which is frozen. Narrow it (fusion.*, lm.*), or set tune = "
    "'trainable' for that encoder"
)


def _may_train(model: nn.Module, name: str) -> bool:
    """Whether the model lets a stage train this parameter; a plain module has no frozen encoders."""
    asked = getattr(model, "may_train", None)
    return asked is None or asked(name)


def _ways(model: nn.Module, entry: str) -> str:
    if entry == "lm.head" and _tied(model):
        return "its output layer shares the weights of its token embeddings. Train lm.embeddings, which moves both"
    names = [name for name, _ in model.named_parameters() if _may_train(model, name)]
    parts = sorted({part_of(name, expert_layers(model)) for name in names})
    return f"it has {', '.join(parts)}, and names such as {names[0]}"


def _tied(model: Any) -> bool:
    head, embeddings = (get() for get in (model.get_output_embeddings, model.get_input_embeddings))
    return head is not None and head.weight is embeddings.weight


def freeze_all_but(model: nn.Module, trained: dict[str, list[str]]) -> None:
    """Let exactly the selected parameters have gradients."""
    chosen = {name for names in trained.values() for name in names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def expert_layers(model: nn.Module) -> list[str]:
    """Names of the layers whose tokens are routed to experts, upcycled ones and a language model's own."""
    lm = getattr(model, "lm", None)
    return [f"lm.{name}" for name in routers(lm)] if lm is not None else []


def hashes(model: nn.Module, trained: Mapping[str, Sequence[str]] | None = None) -> dict[str, dict[str, str]]:
    """SHA-256 of the trained and of the frozen parameters (and buffers) of each part of the model.

    Args:
        trained: as :func:`selected` gives it; then each entry of a stage's ``trains`` is a part by itself.
    """
    digests: dict[tuple[str, str], "hashlib._Hash"] = {}
    entries = {name: entry for entry, names in (trained or {}).items() for name in names if entry != "connector"}
    for name, tensor, trains in _tensors(model):
        key = (entries.get(name, name.split(".")[0]), "trained" if trains else "frozen")
        digest = digests.setdefault(key, hashlib.sha256())
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    result: dict[str, dict[str, str]] = {}
    for (part, kind), digest in sorted(digests.items()):
        result.setdefault(part, {})[kind] = digest.hexdigest()
    return result


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    for name, parameter in model.named_parameters():
        yield name, parameter, parameter.requires_grad
    for name, buffer in model.named_buffers():
        yield name, buffer, False


def check_hashes(
    before: dict[str, dict[str, str]], after: dict[str, dict[str, str]], *, stage: str, may_idle: bool = False
) -> list[str]:
    """Compare the hashes of before and after a stage.

    Args:
        may_idle: encoders learn only from questions that choose them, and perhaps none did.

    Returns:
        Sentences about encoders that did not learn although they were to.

    Raises:
        TrainingError: if something frozen changed, or something that should train did not.
    """
    idle = []
    for part, kinds in before.items():
        for kind, digest in kinds.items():
            same = after.get(part, {}).get(kind) == digest
            if kind == "frozen" and not same:
                raise TrainingError(
                    f"stage {stage}: frozen weights of '{part}' changed while it trained. A plugin may write to them"
                )
            if kind == "trained" and same and may_idle and part.startswith("encoders"):
                idle.append(f"stage {stage}: '{part}' learned NOTHING, for no question chose it")
            elif kind == "trained" and same:
                raise TrainingError(
                    f"stage {stage}: '{part}' was to train, but its weights are as before. Is lr too small?"
                )
    return idle
