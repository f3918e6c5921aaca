"""Checkpoints that are missing, damaged or of another network stop with an error that says what to do."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from polyvex_sam import SamEncoder, SamOptions, SamVitB
from safetensors.torch import save_file
from torch import Tensor

from polyvex.encoders import WeightsReport
from polyvex.errors import WeightsError

State = dict[str, Tensor]


@pytest.fixture
def changed(checkpoint: Path, tmp_path: Path) -> Callable[[Callable[[State], object]], Path]:
    """A function that writes the checkpoint again after a change to its tensors."""

    def write(change: Callable[[State], object]) -> Path:
        state = torch.load(checkpoint, weights_only=True)
        change(state)
        torch.save(state, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    return write


def load(kind: type[SamEncoder], path: Path, **options: Any) -> tuple[SamEncoder, WeightsReport]:
    encoder = kind(SamOptions(weights=str(path), **{"image_size": 128, **options}))
    return encoder, encoder.load_pretrained()


def test_every_key_is_accounted_for(tiny: type[SamEncoder], checkpoint: Path) -> None:
    encoder, report = load(tiny, checkpoint)
    keys = torch.load(checkpoint, weights_only=True)
    assert set(report.loaded) == set(encoder.network.state_dict())
    assert {key.split(".")[0] for key in report.unused} == {"prompt_encoder", "mask_decoder"}
    assert len(report.loaded) + len(report.unused) == len(keys)
    assert (report.missing, report.reshaped) == ([], [])


def test_what_is_not_built_is_unused(tiny: type[SamEncoder], checkpoint: Path) -> None:
    _, report = load(tiny, checkpoint, features="blocks", layers=[0, 1])
    unused = {".".join(key.split(".")[:2]) for key in report.unused if not key.startswith(("prompt", "mask"))}
    assert unused == {"blocks.2", "blocks.3", "neck.0", "neck.1", "neck.2", "neck.3"}
    assert not set(report.unused) & set(report.loaded)


def test_another_size_reports_what_was_resampled(tiny: type[SamEncoder], checkpoint: Path) -> None:
    encoder, report = load(tiny, checkpoint, image_size=80)
    tables = [f"blocks.{block}.attn.rel_pos_{axis}" for block in (1, 3) for axis in "hw"]
    assert report.reshaped == [*tables, "pos_embed"]
    assert set(report.loaded) | set(report.reshaped) == set(encoder.network.state_dict())
    assert not set(report.loaded) & set(report.reshaped)


def test_tables_of_blocks_that_are_not_built_are_not_resampled(tiny: type[SamEncoder], checkpoint: Path) -> None:
    _, report = load(tiny, checkpoint, image_size=80, features="blocks", layers=2)
    assert report.reshaped == ["blocks.1.attn.rel_pos_h", "blocks.1.attn.rel_pos_w", "pos_embed"]
    assert "blocks.3.attn.rel_pos_h" in report.unused


def test_safetensors_and_half_precision_load_as_well(tiny: type[SamEncoder], checkpoint: Path, tmp_path: Path) -> None:
    state = {key: value.half() for key, value in torch.load(checkpoint, weights_only=True).items()}
    save_file(state, tmp_path / "sam.safetensors")
    encoder, report = load(tiny, tmp_path / "sam.safetensors", image_size=80)
    whole, _ = load(tiny, checkpoint, image_size=80)
    assert "pos_embed" in report.reshaped
    for key, value in encoder.network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, whole.network.state_dict()[key], atol=2e-3), key


def test_an_encoder_planned_on_meta_gets_its_weights(tiny: type[SamEncoder], checkpoint: Path) -> None:
    options = SamOptions(image_size=80, weights=str(checkpoint))
    with torch.device("meta"):
        encoder = tiny(options)
    encoder.load_pretrained()
    wanted, _ = load(tiny, checkpoint, image_size=80)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, wanted.state_dict()[key]), key


def test_what_is_resampled_keeps_the_files_precision(tiny: type[SamEncoder], changed: Callable[..., Path]) -> None:
    """An encoder that was planned on meta takes the file's tensors as they are, and must not get two precisions."""
    path = changed(lambda state: state.update({key: value.half() for key, value in state.items()}))
    with torch.device("meta"):
        encoder = tiny(SamOptions(image_size=80, weights=str(path)))
    assert encoder.load_pretrained().reshaped
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float16}


def test_without_weights_the_link_is_told() -> None:
    place = SamVitB.weights(SamOptions())
    assert place.path is None
    assert place.needed
    assert "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth" in place.install
    with torch.device("meta"):
        encoder = SamVitB(SamOptions(image_size=64))
    with pytest.raises(WeightsError, match=r"sam-vit-b: no weights on this machine.*sam_vit_b_01ec64\.pth"):
        encoder.load_pretrained()


def test_a_missing_file_is_named(tiny: type[SamEncoder], tmp_path: Path) -> None:
    path = tmp_path / "none.pth"
    assert tiny.weights(SamOptions(weights=str(path))).path is None
    with pytest.raises(WeightsError, match=re.escape(f"put the checkpoint at {path}")):
        load(tiny, path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_truncated_file_is_refused(share: float, tiny: type[SamEncoder], checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    whole = checkpoint.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=re.escape(f"{path}: not readable as weights, perhaps truncated")):
        load(tiny, path)


class Evil:
    """Makes a folder when it is unpickled by a reader that runs what is in a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_nothing_in_a_file_runs(write: Callable[[Any, Path], None], tiny: type[SamEncoder], tmp_path: Path) -> None:
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    write({"image_encoder.pos_embed": Evil(made)}, path)
    with pytest.raises(WeightsError, match=r"holds more than tensors|not readable as weights"):
        load(tiny, path)
    assert not made.exists()


def test_a_checkpoint_of_another_variant_names_the_right_encoder(tmp_path: Path) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024)}, tmp_path / "large.pth")
    with torch.device("meta"):
        encoder = SamVitB(SamOptions(weights=str(tmp_path / "large.pth")))
    with pytest.raises(WeightsError, match=r"sam-vit-b is 768 wide, they are 1024 wide\. Use sam-vit-l"):
        encoder.load_pretrained()


def test_names_of_transformers_are_told_apart(tiny: type[SamEncoder], tmp_path: Path) -> None:
    torch.save({"vision_encoder.pos_embed": torch.zeros(1, 8, 8, 32)}, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"expected keys image_encoder\.\*, got vision_encoder.*names of transformers"
    ):
        load(tiny, tmp_path / "other.pth")


def test_an_image_encoder_alone_is_refused(tiny: type[SamEncoder], changed: Callable[..., Path]) -> None:
    def alone(state: State) -> None:
        for key in list(state):
            state[key.removeprefix("image_encoder.")] = state.pop(key)

    with pytest.raises(WeightsError, match="Take a checkpoint as segment-anything saves it"):
        load(tiny, changed(alone))


OTHERS: dict[str, Callable[[State], object]] = {
    "missing blocks.2.attn.qkv.weight": lambda state: state.pop("image_encoder.blocks.2.attn.qkv.weight"),
    "missing pos_embed": lambda state: state.pop("image_encoder.pos_embed"),
    "missing neck.3.bias": lambda state: state.pop("image_encoder.neck.3.bias"),
    "unexpected blocks.4.norm1.bias": lambda state: state.update({"image_encoder.blocks.4.norm1.bias": torch.zeros(2)}),
    "unexpected blocks.0.adapter.weight": lambda state: state.update(
        {"image_encoder.blocks.0.adapter.weight": torch.zeros(2)}
    ),
    "unexpected teacher.weight": lambda state: state.update({"teacher.weight": torch.zeros(2)}),
    "blocks.0.attn.rel_pos_h: file has (7, 16), model wants (5, 16)": lambda state: state.update(
        {"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(7, 16)}
    ),
    "patch_embed.proj.weight: file has (32, 3, 8, 8), model wants (32, 3, 16, 16)": lambda state: state.update(
        {"image_encoder.patch_embed.proj.weight": torch.zeros(32, 3, 8, 8)}
    ),
    "pos_embed: file has (1, 64, 32), model wants (1, 8, 8, 32)": lambda state: state.update(
        {"image_encoder.pos_embed": torch.zeros(1, 64, 32)}
    ),
}


@pytest.mark.parametrize("told", OTHERS)
def test_another_architecture_is_refused_by_name(
    told: str, tiny: type[SamEncoder], changed: Callable[..., Path]
) -> None:
    with pytest.raises(WeightsError, match="weights of another architecture") as caught:
        load(tiny, changed(OTHERS[told]))
    assert told in str(caught.value)
