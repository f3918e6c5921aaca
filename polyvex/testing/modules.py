"""Checks that fusions, position schemes and routers share: building, saving, learning."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from polyvex.testing.probes import expect

M = TypeVar("M", bound=nn.Module)

Outputs = Mapping[str, Tensor]
"""What a module gives for fixed inputs, by a name for messages."""


def fresh(make: Callable[[], M]) -> M:
    """Build a module in eval mode; its random weights are the same in each run, so that a check is not a lottery."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def check_builds_on_meta(make: Callable[[], nn.Module], module: nn.Module) -> None:
    """The constructor works under ``torch.device("meta")``, where a model is planned without memory."""
    name = type(module).__name__
    try:
        with torch.device("meta"):
            planned = make()
    except Exception as error:
        raise AssertionError(
            f'{name} cannot be built under torch.device("meta"): {type(error).__name__}: {error}. '
            "The constructor must build the structure only, without reading values"
        ) from error
    heavy = [key for key, parameter in planned.named_parameters() if parameter.device.type != "meta"]
    expect(
        not heavy,
        f'{name}, built under torch.device("meta"), takes memory for {", ".join(heavy[:4])}; '
        "make parameters with torch.empty and fill them afterwards",
    )
    shapes = [{key: tuple(value.shape) for key, value in one.state_dict().items()} for one in (planned, module)]
    expect(shapes[0] == shapes[1], f'{name} has other keys or shapes under torch.device("meta")')


def check_saves_all(make: Callable[[], M], module: M, outputs: Callable[[M], Outputs]) -> None:
    """The state dict is all there is: a new instance that takes it over gives the same outputs."""
    name = type(module).__name__
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # other fresh weights than the module has
        copied = make()
    copied.load_state_dict(module.state_dict(), strict=True)
    check_same(
        outputs(copied.eval()),
        outputs(module),
        f"{name} gives other values after its state dict went through a new instance; "
        "make all that matters a parameter or a persistent buffer",
    )


def check_is_steady(module: M, outputs: Callable[[M], Outputs]) -> None:
    """The same inputs give the same outputs, whatever the global random state is."""
    given = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            given.append(outputs(module))
    first, second = given
    message = f"{type(module).__name__} gave two outputs for the same input; in eval mode nothing is random"
    check_same(first, second, message)


def check_learns(module: nn.Module, outputs: Callable[[], Outputs]) -> None:
    """A gradient from the outputs reaches every parameter, so that training changes all of them."""
    module.zero_grad()
    with torch.enable_grad():
        floats = [value for value in outputs().values() if value.is_floating_point() and value.requires_grad]
        if floats:
            torch.stack([value.double().square().sum() for value in floats]).sum().backward()
    idle = [key for key, parameter in module.named_parameters() if parameter.grad is None]
    module.zero_grad()
    expect(
        not idle, f"{type(module).__name__}: no gradient reaches {', '.join(idle[:4])}; use it in forward, or leave it"
    )


def check_same(given: Outputs, wanted: Outputs, message: str) -> None:
    """Two outputs are the same, but for rounding where they are fractions.

    Raises:
        AssertionError: with the message, and what differs by how much.
    """
    for name, value in wanted.items():
        other = given[name]
        expect(other.shape == value.shape, f"{message} ({name}: {tuple(other.shape)} and {tuple(value.shape)})")
        if value.numel() == 0:
            continue
        difference = (other.double() - value.double()).abs().max().item()
        allowed = 1e-4 * value.double().abs().max().item() if value.is_floating_point() else 0.0
        expect(difference <= allowed, f"{message} ({name}: largest difference {difference:.3g})")
