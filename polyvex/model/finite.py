"""Weights that hold something else than numbers."""

import torch
from torch import nn


def not_finite(model: nn.Module) -> list[str]:
    """Names of the parameters that hold something else than numbers."""
    return [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
