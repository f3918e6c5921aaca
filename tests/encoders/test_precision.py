"""Half precision where the device has it, and nowhere else."""

import pytest
import torch

from polyvex.encoders import precision
from polyvex.encoders.inputs import run_encoder
from polyvex.hooks.manager import Registries

CPU = torch.device("cpu")


@pytest.mark.parametrize("asked", ["float16", "bfloat16"])
def test_a_cpu_computes_in_float32(asked: precision.Precision, registries: Registries) -> None:
    assert precision.used(CPU, asked) == "float32"
    encoder = registries.encoders["patchify"](registries.encoders["patchify"].Options())
    assert run_encoder(encoder, torch.randn(1, 3, 64, 64), asked).values.dtype == torch.float32


@pytest.mark.parametrize(("has_bfloat16", "used"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_what_it_has(has_bfloat16: bool, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    gpu = torch.device("cuda")
    assert precision.used(gpu, "bfloat16") == used
    assert precision.used(gpu, "float16") == "float16"
    assert precision.used(gpu, "float32") == "float32"


def test_half_precision_is_near_and_leaves_the_weights(monkeypatch: pytest.MonkeyPatch, registries: Registries) -> None:
    monkeypatch.setattr(precision, "works", lambda device, asked: True)
    encoder = registries.encoders["patchify"](registries.encoders["patchify"].Options())
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    full, half = (run_encoder(encoder, pixels, asked).values for asked in ("float32", "bfloat16"))
    assert half.dtype == torch.bfloat16
    assert not torch.equal(half.float(), full)
    assert torch.allclose(half.float(), full, atol=0.03)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
