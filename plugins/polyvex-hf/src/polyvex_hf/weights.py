"""Put a checkpoint's weights, under whatever names transformers ever gave them, into the network that is read."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyvex.encoders import WeightsReport, load_strictly, read_weights
from polyvex.errors import WeightsError
from polyvex_hf.checkpoint import Checkpoint
from polyvex_hf.network import computed_buffers, norm_name, whole_network

TOWER = "vision_model."
"""How names of the vision tower begin in a file that may hold a text tower too."""

BESIDE = (
    "text_model.",
    "text_projection.",
    "visual_projection.",
    "logit_scale",
    "logit_bias",
    "classifier.",
    "cls_classifier.",
    "distillation_classifier.",
    "decoder.",
    "head.",
    "lm_head.",
    "pooler.",
)
"""How names begin that transformers' models have beside the network: another tower, or a head for one task."""


def load_into(encoder: Any, checkpoint: Checkpoint, path: Path) -> WeightsReport:
    """Load a file into ``encoder.network`` and ``encoder.norm``, and account for every key of both.

    Other towers, heads, pooling, and layers that are not built stay unused. Tables that transformers computes are
    computed anew where the file does not hold them.

    Raises:
        WeightsError: if the file cannot be read, or its keys or shapes are of another architecture.
    """
    with torch.device("meta"):
        whole = whole_network(checkpoint)
    norm = norm_name(whole, checkpoint.model_type)
    wanted = encoder.state_dict()
    found, foreign = read_state(path, whole)
    state = {f"network.{key}": value for key, value in _computed(encoder.network, computed_buffers(whole)).items()}
    unused: dict[str, Tensor] = {}
    for name, (source, tensor) in found.items():
        top, _, rest = name.partition(".")
        place = f"norm.{rest}" if top == norm else f"network.{name}"
        if place in wanted:
            state[place] = tensor.to(wanted[place].dtype)
        else:
            unused[source] = tensor
    beside = [key for key in foreign if _is_beside(key, whole)]
    return load_strictly(encoder, {**foreign, **unused, **state}, path=path, ignore=[*beside, *unused])


def read_state(path: Path, whole: Any) -> tuple[dict[str, tuple[str, Tensor]], dict[str, Tensor]]:
    """Read a file's tensors under the names that the network has today, by transformers' own table of renamings.

    Args:
        whole: the network with all of its layers, on ``meta`` if you like: only its structure is asked.

    Returns:
        The network's names, each with the file's name and the tensor; and what has no place in the network.

    Raises:
        WeightsError: if the file cannot be read, or two of its keys have one place.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(whole)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    places = {**whole.state_dict(), **dict(whole.named_buffers())}
    tensors = read_weights(path)
    only = TOWER if any(key.startswith(TOWER) for key in tensors) else ""
    kept: dict[str, tuple[str, Tensor]] = {}
    foreign: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name, pattern = rename_source_key(key, renamings, converters, whole.base_model_prefix, places)
        if name not in places and key in places:
            name, pattern = key, None
        if name not in places or not key.startswith(only):
            foreign[key] = tensor
            continue
        for place, value in _converted(name, key, tensor, pattern, converters, whole).items():
            if place in kept:
                raise WeightsError(f"{path}: both {kept[place][0]} and {key} are {place} of the network")
            kept[place] = (key, value)
    return kept, foreign


def _converted(
    name: str, key: str, tensor: Tensor, pattern: str | None, converters: list[Any], whole: Any
) -> Mapping[str, Tensor]:
    """One tensor of a file as those of the network: some files keep in one what the network has in two."""
    if pattern is None:
        return {name: tensor}
    converter = copy.deepcopy(next(entry for entry in converters if pattern in entry.source_patterns))
    converter.add_tensor(name, key, pattern, tensor)
    made = converter.convert(name, model=whole, config=whole.config)
    return {place: value[0] if isinstance(value, list) else value for place, value in made.items()}


def _is_beside(key: str, whole: Any) -> bool:
    """Whether a key without a place belongs, by design, to something else, or to a table that is computed today."""
    stale = getattr(type(whole), "_keys_to_ignore_on_load_unexpected", None) or []
    return key.startswith(BESIDE) or any(re.search(pattern, key) for pattern in stale)


def _computed(network: Any, keys: list[str]) -> dict[str, Tensor]:
    """Tables of the network as transformers makes them where it loads a file that does not hold them.

    Raises:
        WeightsError: if transformers leaves one as it was.
    """
    found = {}
    for key in keys:
        parent, _, name = key.rpartition(".")
        try:
            owner = network.get_submodule(parent)
        except AttributeError:
            continue  # of a layer that is not built
        first, second = (_table(network, owner, name, filled) for filled in (0, 1))
        if not torch.equal(first, second):
            raise WeightsError(f"transformers does not compute {key} of {type(network).__name__}; it cannot be loaded")
        found[key] = first
    return found


def _table(network: Any, owner: nn.Module, name: str, filled: int) -> Tensor:
    """A table after transformers' own initialisation of a copy of its module, where it held one number before."""
    made = copy.deepcopy(owner).to_empty(device="cpu")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        getattr(made, name).fill_(filled)
        network._init_weights(made)
    return getattr(made, name)
