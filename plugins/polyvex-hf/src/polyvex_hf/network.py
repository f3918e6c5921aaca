"""transformers' network for a checkpoint, without what is not read."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from polyvex_hf.checkpoint import Checkpoint
from polyvex_hf.families import FAMILIES, NORMS
from polyvex_hf.maps import Stages, find_stages


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A network that ends behind the last layer that is read, and its final norm if that is wanted.

    ``layers`` counts from 0.
    """

    network: Any
    norm: nn.Module | None
    layers: tuple[int, ...]


def make_parts(checkpoint: Checkpoint, layers: Sequence[int], *, norm: bool) -> Parts:
    """Build the network without what comes behind the last of ``layers``, without pooling and mask token.

    The norm is kept apart, so that it runs on what is read and on nothing else.

    Raises:
        ValueError: if the network cannot be read in this way, or a layer or the norm does not exist.
    """
    if checkpoint.model_type in FAMILIES:
        chosen = _counted(checkpoint, layers, checkpoint.vision.num_hidden_layers)
        network = _build(checkpoint, _without(checkpoint.config(), max(chosen) + 1), pool=False)
    else:
        stages = stages_of(checkpoint)
        chosen = _counted(checkpoint, layers, stages.count)
        network = _build(checkpoint, checkpoint.config(), pool=False)
        # Fewer depths in the configuration would also change what joins the stages: the last of them has no join.
        del network.get_submodule(stages.path)[max(chosen) + 1 :]
    name = norm_name(network, checkpoint.model_type)
    final = getattr(network, name) if name else None
    if name:
        setattr(network, name, nn.Identity())
    if norm and final is None:
        raise ValueError(f"'{checkpoint.name}' has no final norm over its tokens; leave norm = false")
    _keep_all_buffers(network)
    return Parts(network=network, norm=final if norm else None, layers=chosen)


def whole_network(checkpoint: Checkpoint) -> Any:
    """transformers' network with all that its configuration names."""
    return _build(checkpoint, checkpoint.config(), pool=True)


def norm_name(network: nn.Module, model_type: str) -> str | None:
    """Under which name a network has its final norm; None without one."""
    family = FAMILIES.get(model_type)
    names = (family.norm,) if family else NORMS
    return next((name for name in names if isinstance(getattr(network, name, None), nn.LayerNorm)), None)


@lru_cache(maxsize=64)
def stages_of(checkpoint: Checkpoint) -> Stages:
    """The stages of a network that gives out maps.

    Raises:
        ValueError: as :func:`polyvex_hf.maps.find_stages`.
    """
    with torch.device("meta"):
        network = _build(checkpoint, checkpoint.config(), pool=False).eval()
    return find_stages(network, checkpoint.name, checkpoint.model_type)


def computed_buffers(network: nn.Module) -> list[str]:
    """Buffers that transformers computes when it builds, as rotary tables, so that no file has to hold them."""
    stored = set(network.state_dict())
    return [key for key, _ in network.named_buffers() if key not in stored]


def _without(config: Any, layers: int) -> Any:
    """A configuration with fewer layers, and without what is made for training or for pooling."""
    config.num_hidden_layers = layers
    # mask_ratio: MAE's encoder then takes all patches; `polyvex_hf.reading` keeps them in their order.
    for key, value in {"vision_use_head": False, "use_mask_token": False, "mask_ratio": 0.0}.items():
        if hasattr(config, key):
            setattr(config, key, value)
    return config


def network_class(checkpoint: Checkpoint) -> type[Any]:
    """transformers' class of the network.

    Raises:
        ValueError: if there is none, or it looks at something else than RGB images, or at more.
    """
    from transformers import MODEL_MAPPING

    told = f"'{checkpoint.name}' ({checkpoint.model_type})"
    kind: Any = MODEL_MAPPING.get(type(checkpoint.vision), None)
    if not isinstance(kind, type):
        raise ValueError(f"transformers has no network of one tower for {told}")
    takes, channels = getattr(kind, "main_input_name", "input_ids"), getattr(checkpoint.vision, "num_channels", 3)
    if takes != "pixel_values" or channels != 3:
        raise ValueError(
            f"{told} does not look at RGB images: it takes {takes} with {channels} channels. Give a checkpoint with a "
            "vision tower"
        )
    arguments = list(inspect.signature(kind.forward).parameters.values())[2:]  # behind self and the pixels
    plain = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    if more := [one.name for one in arguments if one.default is one.empty and one.kind not in plain]:
        raise ValueError(f"{told} needs more than pixels: {', '.join(more)}. Give a checkpoint for images of one size")
    return kind


def _build(checkpoint: Checkpoint, config: Any, *, pool: bool) -> Any:
    from transformers import AutoModel

    pools = "add_pooling_layer" in inspect.signature(network_class(checkpoint).__init__).parameters
    without: dict[str, Any] = {"add_pooling_layer": False} if pools and not pool else {}
    try:
        return AutoModel.from_config(config, dtype=torch.get_default_dtype(), trust_remote_code=False, **without)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"transformers cannot build '{checkpoint.name}': {error}") from None


def _counted(checkpoint: Checkpoint, layers: Sequence[int], count: int) -> tuple[int, ...]:
    """Layers counted from 0."""
    if bad := [layer for layer in layers if not -count <= layer < count]:
        raise ValueError(
            f"layers {bad} do not fit '{checkpoint.name}', which has {count}: 0 to {count - 1}, or -{count} to -1"
        )
    return tuple(layer % count for layer in layers)


def _keep_all_buffers(network: nn.Module) -> None:
    """Put computed buffers into the state dict: a checkpoint of polyvex holds all state."""
    for key in computed_buffers(network):
        parent, _, name = key.rpartition(".")
        owner = network.get_submodule(parent)
        owner.register_buffer(name, getattr(owner, name), persistent=True)
