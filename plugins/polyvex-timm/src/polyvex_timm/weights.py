"""Find a model's weight file on this machine, and read it under the names of timm's network."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from polyvex.encoders.files import unreadable
from polyvex.errors import WeightsError
from polyvex_timm.network import Size, weights_config


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What timm knows of a model's weights: the image size and licence they have, and where they are on the hub.

    ``files`` are names that the file may have there, the preferred ones first.
    """

    size: Size
    license: str | None
    source: str
    hub: str | None
    files: tuple[str, ...]

    def how_to_get(self, checkpoint: str) -> str:
        """What to do for the weights of ``checkpoint``."""
        if self.hub:
            return f"hf download {self.hub} {self.files[0]}, or give the option weights the path of such a file"
        return f"give the option weights the path of a file that timm wrote for {checkpoint.partition('.')[0]}"


def origin_of(checkpoint: str) -> Origin:
    """Ask timm.

    Raises:
        ValueError: as :func:`polyvex_timm.network.weights_config`.
    """
    config = weights_config(checkpoint)
    own = [config.hf_hub_filename] if config.hf_hub_filename else []
    return Origin(
        size=(config.input_size[1], config.input_size[2]),
        license=None if config.license == "unknown" else config.license,
        source=config.origin_url or config.paper_name or f"timm's {checkpoint}",
        hub=config.hf_hub_id,
        files=(*own, "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"),
    )


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
        raise unreadable(path, error) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no weights; expected a state dict as safetensors or as torch saves it")
    family = sys.modules[type(network).__module__]
    filter_for = getattr(family, "checkpoint_filter_fn", None)
    shapes = {key: value.shape for key, value in state.items()}
    read = dict(filter_for(dict(state), network)) if filter_for else dict(state)
    return read, sorted(key for key, value in read.items() if value.shape != shapes.get(key, value.shape))
