"""What encoders that are computed from their options alone have in common: facts, no weights to find, seeded values."""

import hashlib

import torch
from torch import nn

from polyvex.encoders import EncoderFacts, License, WeightsPlace, WeightsReport
from polyvex.tokens import Grid, TokenShape


def computed_facts(
    *, side: int, grid: Grid, dim: int, source: str, parameters: int = 0, flops: int | None = None
) -> EncoderFacts:
    """Facts of an encoder of square images that nobody trained; its licence is this package's."""
    return EncoderFacts(
        shape=TokenShape(tokens=grid.tokens, dim=dim, grid=grid),
        image_size=(side, side),
        parameters=parameters,
        flops=flops,
        license=License(name="Apache-2.0", commercial=True),
        source=f"{source}; trained by nobody on nothing",
    )


def no_weights() -> WeightsPlace:
    """Nothing is needed."""
    return WeightsPlace(path=None, install="nothing to install", needed=False)


def fill_from_seed(module: nn.Module, seed: int, *, gain: float) -> WeightsReport:
    """Set all parameters to normal values from a generator of their own, and account for them.

    Values of a parameter [outputs ...] have deviation ``gain`` / √(inputs of one output). Their digest is of the
    values as float32. No global random state is read or changed, and on ``meta`` there is nothing to set.
    """
    generator, digest, loaded = torch.Generator(device="cpu").manual_seed(seed), hashlib.sha256(), []
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator, device="cpu", dtype=torch.float32)
        values = values * gain / parameter.shape[1:].numel() ** 0.5
        with torch.no_grad():
            parameter.copy_(values)
        digest.update(values.numpy().tobytes())
        loaded.append(name)
    return WeightsReport(source="(computed from the seed)", sha256=digest.hexdigest(), loaded=loaded)


def parts(whole: int, part: int, name: str) -> int:
    """How many times ``part``, which options call ``name``, goes into the image's side.

    Raises:
        ValueError: if something is left over.
    """
    times, rest = divmod(whole, part)
    if rest:
        raise ValueError(f"image_size {whole} is not a multiple of {name}")
    return times
