"""Whether an encoder learns with the model: not, whole, or through low-rank adapters."""

from typing import Literal

from polyvex.adapters.lora import ADAPTER, LoRA, put_lora
from polyvex.adapters.targets import linear_layers
from polyvex.encoders.base import VisionEncoder

Tune = Literal["frozen", "trainable", "lora"]


def adapt(encoder: VisionEncoder, lora: LoRA) -> VisionEncoder:
    """Put adapters into the encoder's linear layers. Tokens stay what they were until they are trained.

    Raises:
        ValueError: if a target fits no linear layer, or there is none. Names those that there are.
    """
    try:
        layers = linear_layers(encoder, lora.targets, key="lora.targets")
    except ValueError as error:
        way = "" if "fits" in str(error) else ". Set tune = 'trainable' or 'frozen'"
        raise ValueError(f"{error}{way}") from None
    put_lora(encoder, lora, layers=layers)
    return encoder


def may_learn(parameter: str, tune: Tune) -> bool:
    """Whether a stage may train an encoder's parameter of this name."""
    return tune == "trainable" or (tune == "lora" and ADAPTER in parameter)
