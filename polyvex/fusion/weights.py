"""How much each encoder counts in a fusion that weighs them, and how to read that while a forward runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn


class EncoderWeights(nn.Module):
    """Passes the weights of encoders on unchanged, so that a forward hook can see them.

    A fusion that weighs encoders holds one of these and sends through it what it weighs them with: for each image, or
    for each token of each image, one number per encoder. They sum to one.
    """

    def forward(self, weights: Float[Tensor, "images *tokens encoders"]) -> Float[Tensor, "images *tokens encoders"]:
        """Give the weights back."""
        return weights


@contextmanager
def record_encoder_weights(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the weights of encoders of each forward inside ``module``, without their gradients.

    Hooks are put on for the length of the block and always taken off.
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple[Tensor, ...], weights: Tensor) -> None:
        found.append(weights.detach())

    handles = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, EncoderWeights)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
