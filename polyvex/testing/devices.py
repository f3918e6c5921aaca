"""Check that tokens stay on the device of the pixels, also on machines that have but one device."""

import re
from contextlib import nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from polyvex.encoders import EncoderFacts, VisionEncoder
from polyvex.encoders.inputs import map_inputs
from polyvex.testing.probes import expect, inputs_for, random_pixels

MIXED = re.compile(r"same device|different devices|expected device")
"""What torch says when tensors of two devices meet."""


def check_device(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Tokens come out on the device of the pixels and weights.

    Without a GPU, weights and pixels only claim to be on one: torch goes through the forward with tensors that have a
    shape and a device, but no values. An encoder that has to read values, as one that leaves torch does, cannot be
    looked at in this way and passes.
    """
    name = type(encoder).__name__
    inputs = inputs_for(encoder, random_pixels(facts, 1))
    real = torch.cuda.is_available()
    with nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():

        def there(value: Tensor) -> Tensor:
            return value.to("cuda") if real else torch.empty_like(value, device="cuda")

        state = {key: there(value) for key, value in [*encoder.named_parameters(), *encoder.named_buffers()]}
        given = map_inputs(inputs, there)
        args, named = ((), given) if isinstance(given, dict) else ((given,), {})
        try:
            values = functional_call(encoder, state, args, named).values
        except Exception as error:
            expect(
                not real and not MIXED.search(str(error)),
                f"{name} fails on a GPU: {error}. Make tensors in forward on the device of the pixels",
            )
            return
    expect(
        values.device.type == "cuda",
        f"{name} returned tokens on {values.device} for pixels on a GPU; expected the device that came in",
    )
