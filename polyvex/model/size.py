"""How large a model's weights are on a disk."""

from torch import nn


def bytes_of(model: nn.Module) -> int:
    """Bytes of all parameters and persistent buffers, as they are stored."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
