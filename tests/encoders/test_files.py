"""Weight files: found without a network, read without running what is in them."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from polyvex.encoders.files import allows_commerce, find_in_folder, find_on_hub, read_weights
from polyvex.errors import WeightsError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def same(read: dict[str, Tensor]) -> bool:
    return read.keys() == STATE.keys() and all(torch.equal(read[key], value) for key, value in STATE.items())


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    assert find_in_folder(tmp_path) is None
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert find_in_folder(tmp_path) == tmp_path / "pytorch_model.bin"
    save_file(STATE, tmp_path / "model.safetensors")
    assert find_in_folder(tmp_path) == tmp_path / "model.safetensors"


def test_the_hubs_cache_is_looked_at_and_nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert find_on_hub("lab/eye") is None
    snapshot = tmp_path / "models--lab--eye" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--lab--eye" / "refs").mkdir()
    (tmp_path / "models--lab--eye" / "refs" / "main").write_text("abc")
    torch.save(STATE, snapshot / "pytorch_model.bin")
    assert find_on_hub("lab/eye") == snapshot / "pytorch_model.bin"
    save_file(STATE, snapshot / "model.safetensors")
    assert find_on_hub("lab/eye") == snapshot / "model.safetensors"
    assert find_on_hub("lab/eye", ["other.bin"]) is None


def test_each_format_reads_the_same(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "one.safetensors")
    torch.save(STATE, tmp_path / "two.pth")
    save_file({"a.weight": STATE["a.weight"]}, tmp_path / "part-1.safetensors")
    torch.save({"b": STATE["b"]}, tmp_path / "part-2.bin")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "part-1.safetensors", "b": "part-2.bin"}}))
    for name in ("one.safetensors", "two.pth", index.name):
        assert same(read_weights(tmp_path / name)), name


class Runs:
    """A pickle that would make a folder when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    torch.save({"a": Runs(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=r"bad\.pth: holds more than tensors \(\w+\.mkdir\)"):
        read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_no_error_passes_on_the_advice_to_let_a_pickle_run(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"a": Runs(tmp_path / "ran")}))  # not as torch writes it
    with pytest.raises(WeightsError, match=r"bad\.pth: ") as caught:
        read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
    assert "arbitrary code" not in str(caught.value)
    assert "set to `False`" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_truncated_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WeightsError, match=rf"{name}: not readable as weights, perhaps truncated; fetch it again"):
        read_weights(path)


def test_something_else_than_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no weights"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no weights at"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not an index of weight files"),
        ("[]", "not an index of weight files"),
        ('{"weight_map": {"a": "../elsewhere.bin"}}', "which is not in its own folder"),
        ('{"weight_map": {"a": "gone.bin"}}', "no weights at"),
    ],
)
def test_a_broken_index_is_an_error(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("apache-2.0", True),
        ("MIT", True),
        ("cc-by-4.0", True),
        ("CC BY-NC 4.0", False),
        ("cc-by-nc-sa-4.0", False),
        ("fair-noncommercial-research-license", False),
        ("research-only", False),
        ("other", False),
        ("", False),
        (None, False),
    ],
)
def test_licences_that_rule_commerce_out(name: str | None, allowed: bool) -> None:
    assert allows_commerce(name) is allowed
