"""What a forward pass returns."""

from dataclasses import dataclass

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils.generic import ModelOutput


@dataclass
class PolyvexOutput(ModelOutput):
    """Logits, and with labels the losses.

    ``loss`` is the total that is trained on: ``answer_loss`` plus each entry of ``aux`` (unweighted, summed over
    layers) times its weight in the recipe's ``[loss]``.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    answer_loss: Tensor | None = None
    aux: dict[str, Tensor] | None = None
