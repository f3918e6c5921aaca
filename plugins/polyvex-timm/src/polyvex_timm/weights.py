"""Find a model's weight file on this machine, and read it under the names of timm's network."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polyvex.errors import WeightsError


def find_on_hub(config: Any) -> Path | None:
    """The file in the hub's local cache; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    if not config.hf_hub_id:
        return None
    for name in (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"):
        if name and isinstance(found := try_to_load_from_cache(config.hf_hub_id, name), str):
            return Path(found)
    return None


def how_to_get(config: Any, checkpoint: str) -> str:
    """What to do for the weights of ``checkpoint``."""
    if config.hf_hub_id:
        name = config.hf_hub_filename or "model.safetensors"
        return f"hf download {config.hf_hub_id} {name}, or give the option weights the path of such a file"
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
