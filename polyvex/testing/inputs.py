"""Checks of how a module treats its inputs: they stay as they are, and flat ones give finite numbers."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from polyvex.testing.modules import Outputs
from polyvex.testing.probes import expect

FLAT = (0.0, 1.0, -30.0)
"""Values of inputs that are the same everywhere, as the tokens of a blank image are: their deviation is zero."""

LARGEST = 1e6
"""Rounding can make a deviation of zero a tiny number, and a division by it huge."""


def check_untouched(module: nn.Module, inputs: Mapping[str, Tensor], run: Callable[[], object]) -> None:
    """A forward leaves its inputs as they are, in training too, and in eval mode also weights and buffers.

    torch counts the writes to a tensor, so a write that happens to change no value is found as well.
    """
    name = type(module).__name__
    state = dict([*module.named_parameters(), *module.named_buffers()])
    training = module.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for mode in ("eval", "training"):
            module.train(mode == "training")
            try:
                before = {key: value._version for key, value in inputs.items()}
                kept = {key: value._version for key, value in state.items()}
                run()
                written = [key for key, value in inputs.items() if value._version != before[key]]
                updated = [key for key, value in state.items() if value._version != kept[key]]
            finally:
                module.train(training)
            expect(
                not written,
                f"{name} changes {', '.join(written[:4])} in place in {mode} mode; other code reads the same tensors. "
                "Compute a new tensor: x = x + 1 instead of x += 1",
            )
            expect(
                mode == "training" or not updated,
                f"{name} changes its own {', '.join(updated[:4])} in eval mode, so results depend on earlier calls. "
                "Is a batch norm in training mode?",
            )


def check_flat(
    module: nn.Module, make: Callable[[float], Sequence[Tensor]], run: Callable[[Sequence[Tensor]], Outputs]
) -> None:
    """Inputs of one value give finite outputs and finite gradients: blank images are in every data set.

    Args:
        make: gives the floating-point inputs, filled with a value.
        run: calls the module with them.
    """
    name = type(module).__name__
    for level in FLAT:
        inputs = [value.requires_grad_() for value in make(level)]
        with torch.enable_grad():
            outputs = run(inputs)
            floats = {key: value for key, value in outputs.items() if value.is_floating_point()}
            for key, value in floats.items():
                expect(
                    bool((value.abs() <= LARGEST).all()),  # also false for NaN
                    f"{name} gives NaN, Inf or huge values as {key} for inputs that are {level:g} everywhere. "
                    "Does it divide by a deviation or a norm that can be zero? Add a small number to it",
                )
            if any(value.requires_grad for value in floats.values()):
                torch.stack([value.double().square().sum() for value in floats.values()]).sum().backward()
        gradients = [value.grad for value in [*inputs, *module.parameters()] if value.grad is not None]
        module.zero_grad()
        expect(
            all(bool(gradient.isfinite().all()) for gradient in gradients),
            f"{name} gives gradients with NaN or Inf for inputs that are {level:g} everywhere. "
            "Is there a square root or a norm of zero? Add a small number before it",
        )
