"""Half precision where the device has it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "float16", "bfloat16"]


def works(device: torch.device, precision: Precision) -> bool:
    """Whether a device computes in this precision faster than in float32. CPUs are many times slower."""
    if precision == "float32":
        return True
    if device.type == "cuda":
        return precision == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def used(device: torch.device, precision: Precision) -> Precision:
    """The precision that an encoder really computes in on ``device``."""
    return precision if works(device, precision) else "float32"


def in_precision(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Where an encoder computes in ``precision``, if the device has it; weights stay float32."""
    if used(device, precision) == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
