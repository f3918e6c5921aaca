"""What encoders look at, handled alike whether it is pixels alone or pixels with more."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyvex.encoders.base import EncoderInputs, VisionEncoder
from polyvex.encoders.precision import Precision, in_precision
from polyvex.tokens import VisualTokens


def run_encoder(encoder: VisionEncoder, inputs: EncoderInputs, precision: Precision = "float32") -> VisualTokens:
    """Encode ``inputs`` of several views, in half precision where it is asked for and the device has it."""
    with in_precision(pixels_of(inputs).device, precision):
        return encoder(**inputs) if isinstance(inputs, dict) else encoder(inputs)


def pixels_of(inputs: EncoderInputs) -> Tensor:
    """The pixels among what a transform gave."""
    return inputs["pixels"] if isinstance(inputs, dict) else inputs


def map_inputs(inputs: EncoderInputs, change: Callable[[Tensor], Tensor]) -> EncoderInputs:
    """Change every tensor."""
    return {name: change(value) for name, value in inputs.items()} if isinstance(inputs, dict) else change(inputs)


def to_like(inputs: EncoderInputs, like: Tensor) -> EncoderInputs:
    """Move to the device of ``like``; what has a fraction also to its type."""
    return map_inputs(
        inputs, lambda value: value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)
    )


def stack_inputs(views: Sequence[EncoderInputs]) -> EncoderInputs:
    """Put the inputs of several views into one batch, along a new first axis."""
    return _joined(views, torch.stack)


def join_inputs(batches: Sequence[EncoderInputs]) -> EncoderInputs:
    """Put several batches into one, along their first axis."""
    return _joined(batches, torch.cat)


def _joined(parts: Sequence[EncoderInputs], join: Callable[[list[Tensor]], Tensor]) -> EncoderInputs:
    first = parts[0]
    if isinstance(first, dict):
        return {name: join([part[name] for part in parts]) for name in first}  # type: ignore[call-overload]
    return join(list(parts))  # type: ignore[arg-type]
