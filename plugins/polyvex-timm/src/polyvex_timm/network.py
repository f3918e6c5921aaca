"""A timm network cut behind the last layer that is read, and what it gives, told without memory for weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyvex.tokens import Grid

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a network gives for one image: the grid and the width of each layer that is read, and what it costs."""

    size: Size
    grid: Grid
    dims: tuple[int, ...]
    parameters: int
    flops: int


def weights_config(checkpoint: str) -> "PretrainedCfg":
    """What timm knows of the weights: size, mean, deviation, licence, and where they are on the hub.

    Raises:
        ValueError: if timm has no such model, or no such weights for it. The nearest names are shown.
    """
    import timm

    name, _, tag = checkpoint.partition(".")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:12]}*")[:5] or timm.list_models(f"{name.split('_')[0]}*")[:5]
        raise ValueError(f"timm has no model '{name}'. Near: {', '.join(near) or 'none'}; see timm.list_models()")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise ValueError(f"timm has no weights '{tag}' for '{name}'. Known: {', '.join(tags) or 'none'}")
    config = timm.get_pretrained_cfg(checkpoint)
    if config is None:
        raise ValueError(f"timm has no settings for '{checkpoint}'. Add a tag, one of: {', '.join(tags) or 'none'}")
    return config


def make_network(checkpoint: str, size: Size, layers: Sequence[int], *, norm: bool) -> tuple[nn.Module, list[int]]:
    """Build timm's network for one image size, without what comes behind the last of ``layers``.

    Returns:
        The network, and the indices of the layers that are read, counted from 0.

    Raises:
        ValueError: if the network cannot be read in this way, or the size or a layer does not fit it.
    """
    network = whole_network(checkpoint, size)
    try:
        kept = network.prune_intermediate_layers(list(layers), prune_norm=not norm, prune_head=True)
    except (AssertionError, IndexError) as error:
        raise ValueError(f"layers {list(layers)} do not fit '{checkpoint}': {error}") from None
    _keep_all_buffers(network)
    return network, list(kept)


def whole_network(checkpoint: str, size: Size) -> Any:
    """timm's network for one image size, with all of its layers; see :func:`make_network`."""
    import timm

    config = weights_config(checkpoint)
    sized: dict[str, Any] = {"img_size": size} if config.fixed_input_size else {}
    try:
        network: Any = timm.create_model(checkpoint, pretrained=False, **sized)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"timm cannot build '{checkpoint}' for {size[0]}x{size[1]} pixels: {error}") from None
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"timm's {type(network).__name__} does not give out its layers; take another model")
    if size != tuple(config.input_size[1:]):  # at its own size, what is left over was left over in training too
        _check_patches(network, size)
    return network


def _keep_all_buffers(network: nn.Module) -> None:
    """Put into the state dict what timm computes when it builds, as rotary tables: a checkpoint holds all state."""
    stored = set(network.state_dict())
    for key, buffer in list(network.named_buffers()):
        if key not in stored:
            parent, _, name = key.rpartition(".")
            network.get_submodule(parent).register_buffer(name, buffer, persistent=True)


def _check_patches(network: Any, size: Size) -> None:
    """A side that patches do not divide would be cut without a word."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch is None:
        return
    rows, cols = (patch, patch) if isinstance(patch, int) else patch
    if size[0] % rows or size[1] % cols:
        fits = (max(1, size[0] // rows) * rows, max(1, size[1] // cols) * cols)
        raise ValueError(
            f"image_size {size[0]}x{size[1]} is not a multiple of the {rows}x{cols} patches; {fits[0]}x{fits[1]} is"
        )


def read_layers(network: Any, pixels: Tensor, layers: Sequence[int], *, norm: bool) -> list[Tensor]:
    """Outputs [images dim rows cols] of the layers that are read, without class and register tokens."""
    return network.forward_intermediates(
        pixels, indices=list(layers), norm=norm, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )


@lru_cache(maxsize=64)
def structure_of(checkpoint: str, size: Size, layers: tuple[int, ...], norm: bool) -> Structure:
    """Build the network on ``meta`` and look; nothing is read and no weight takes memory.

    Raises:
        ValueError: as :func:`make_network`, or if the layers have different grids.
    """
    with torch.device("meta"):
        network, kept = make_network(checkpoint, size, layers, norm=norm)
        pixels = torch.empty(1, 3, *size)
    network.eval()
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        try:
            outputs = read_layers(network, pixels, kept, norm=norm)
        except (RuntimeError, AssertionError) as error:  # a kernel or a window that is larger than its input
            raise ValueError(f"'{checkpoint}' cannot read {size[0]}x{size[1]} pixels: {error}") from None
    grids = [Grid(rows=output.shape[2], cols=output.shape[3]) for output in outputs]
    if len(set(grids)) > 1:
        raise ValueError(
            f"layers {list(layers)} of '{checkpoint}' have the grids {', '.join(map(str, grids))}, which cannot be "
            f"joined. Read layers of one grid, or use the encoder twice"
        )
    return Structure(
        size=size,
        grid=grids[0],
        dims=tuple(output.shape[1] for output in outputs),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=counter.get_total_flops(),
    )
