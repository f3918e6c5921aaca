"""Find a model's weight file on this machine, and read it under the names of timm's network."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polyvex.errors import WeightsError


def files_of(config: Any) -> list[str]:
    """Names that the file may have in its repository on the hub, the preferred ones first."""
    own = [config.hf_hub_filename] if config.hf_hub_filename else []
    return [*own, "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"]


def how_to_get(config: Any, checkpoint: str) -> str:
    """What to do for the weights of ``checkpoint``."""
    if config.hf_hub_id:
        return (
            f"hf download {config.hf_hub_id} {files_of(config)[0]}, or give the option weights the path of such a file"
        )
    return f"give the option weights the path of a file that timm wrote for {checkpoint.partition('.')[0]}"


def read_state(path: Path, network: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors, as the network's own family reads them: renamed, and positions resampled to its grid.

    Returns:
        The tensors, and the keys of those that came out in another shape.

    Args:
        network: the whole network, on ``meta`` if you like: only its structure is asked.

    Raises:
        WeightsError: if the file cannot be read. Pickles are read as weights only.
    """
    # timm's reader, not the core's: it also takes weights out of training checkpoints, where they lie beside the rest
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each have their own
        raise WeightsError(
            f"{path}: not readable as weights, perhaps truncated; fetch it again. "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no weights; expected a state dict as safetensors or as torch saves it")
    family = sys.modules[type(network).__module__]
    filter_for = getattr(family, "checkpoint_filter_fn", None)
    shapes = {key: value.shape for key, value in state.items()}
    read = dict(filter_for(dict(state), network)) if filter_for else dict(state)
    return read, sorted(key for key, value in read.items() if value.shape != shapes.get(key, value.shape))
