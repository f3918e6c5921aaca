"""Checks of how an encoder gets its weights: all of them, every time, and accounted for."""

import re

import torch
from torch import Tensor

from polyvex.encoders import EncoderOptions, VisionEncoder, WeightsReport
from polyvex.testing.probes import expect


def check_load_pretrained(encoder_class: type[VisionEncoder], options: EncoderOptions, encoder: VisionEncoder) -> None:
    """``load_pretrained`` sets every weight, whatever was there before, and reports every key.

    Leaves the weights in ``encoder``.
    """
    name = encoder_class.__name__
    place = encoder_class.weights(options)
    expect(
        place.path is not None or not place.needed, f"{name}: its weights are not here. To get them: {place.install}"
    )
    fresh = _copy(encoder)
    report = encoder.load_pretrained()
    _check_report(name, report, list(fresh))
    loaded = _copy(encoder)
    changed = [key for key in fresh if not torch.equal(fresh[key], loaded[key])]
    if place.needed:
        expect(bool(changed), f"{name}.load_pretrained changed no weight")
    else:
        expect(
            not changed, f"{name} needs no weights, so load_pretrained must give the constructor's; changed: {changed}"
        )
    with torch.no_grad():
        for value in encoder.state_dict().values():
            if value.is_floating_point():
                value.add_(1.0)
    encoder.load_pretrained()
    kept = [key for key, value in encoder.state_dict().items() if not torch.equal(value, loaded[key])]
    expect(not kept, f"{name}.load_pretrained does not set {', '.join(kept[:4])}: it kept what was there before")


def _check_report(name: str, report: WeightsReport, keys: list[str]) -> None:
    expect(isinstance(report, WeightsReport), f"{name}.load_pretrained returned {type(report).__name__}")
    expect(
        re.fullmatch(r"[0-9a-f]{64}", report.sha256) is not None,
        f"{name}: the report's sha256 is {report.sha256!r}; expected 64 hexadecimal digits",
    )
    expect(bool(report.source.strip()), f"{name}: the report names no source")
    expect(not report.missing, f"{name}: the weights lack {', '.join(report.missing[:4])}; a random rest must not pass")
    told = set(report.loaded) | set(report.reshaped)
    # A report may name keys as an inner network does, so "network.norm.weight" is also told by "norm.weight".
    untold = [key for key in keys if not any(ending in told for ending in _endings(key))]
    expect(not untold, f"{name}: the report does not account for {', '.join(untold[:4])}")


def _endings(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _copy(encoder: VisionEncoder) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in encoder.state_dict().items()}
