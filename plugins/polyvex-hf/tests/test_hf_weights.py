"""Weights: files of whole models and of old names are accounted for key by key, and what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from polyvex_hf import HfEncoder, HfOptions, register_encoders
from safetensors.torch import load_file, save_file

from polyvex.encoders import WeightsReport
from polyvex.errors import WeightsError

VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64}
SWIN = {"embed_dim": 8, "depths": [1, 2, 1], "num_heads": [1, 1, 2], "window_size": 4, "image_size": 64}
DINO = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}


def two_towers(kind: str) -> Any:
    config = getattr(hf, f"{kind}Config")(text_config=TEXT, vision_config=VIT)
    return getattr(hf, f"{kind}Model")(config)


WHOLE: dict[str, Any] = {
    "vision_model": lambda: two_towers("CLIP"),
    "vision_model of siglip": lambda: two_towers("Siglip"),
    "vision_model with projection": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**VIT)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT)),
    "vit of mae": lambda: hf.ViTMAEForPreTraining(
        hf.ViTMAEConfig(**VIT, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    ),
    "deit": lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**VIT)),
    "beit": lambda: hf.BeitForImageClassification(hf.BeitConfig(**VIT, use_shared_relative_position_bias=True)),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**DINO, use_swiglu_ffn=True)),
    "convnext": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**STAGES)),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(**SWIN)),
}
"""Models with more than the tower that is read, by the name of the part that holds it."""


def save(model: Any, folder: Path) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.rand_like(value) * 0.1)
    model.eval().save_pretrained(folder)
    hf.ViTImageProcessorPil().save_pretrained(folder)
    return model


def encoder_of(folder: Path, **options: Any) -> HfEncoder:
    return HfEncoder(HfOptions(checkpoint=str(folder), **options)).eval()


def accounted(report: WeightsReport, folder: Path) -> None:
    """As many keys of the file as the report tells; a key that the network keeps in two counts as one."""
    keys = set(load_file(folder / "model.safetensors"))
    assert set(report.unused) < keys
    assert report.missing == []
    assert report.reshaped == []
    halves = sum(".gate_proj." in key for key in report.loaded)
    assert len(report.loaded) - halves == len(keys) - len(report.unused)


@pytest.mark.parametrize("kind", WHOLE)
def test_the_tower_of_a_whole_model_is_read_and_the_rest_told(kind: str, tmp_path: Path) -> None:
    model = save(WHOLE[kind](), tmp_path)
    encoder = encoder_of(tmp_path, layers=1)
    report = encoder.load_pretrained()
    computed = [key for key in report.loaded if key.endswith(("position_ids", "relative_position_index"))]
    accounted(
        WeightsReport(
            source=report.source,
            sha256=report.sha256,
            loaded=[key for key in report.loaded if key not in computed],
            unused=report.unused,
        ),
        tmp_path,
    )
    tower = getattr(model, kind.split(maxsplit=1)[0])
    named = {"noise": torch.arange(16.0).expand(1, -1)} if "mae" in kind else {}
    if "mae" in kind:
        tower.config.mask_ratio = 0.0
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        output = tower(pixels, output_hidden_states=True, **named)
        got = encoder(pixels).values
    state = (output.get("reshaped_hidden_states") or output.hidden_states)[2]
    wanted = state.flatten(2).mT if state.ndim == 4 else state[:, -encoder.structure.grid.tokens :]
    assert torch.allclose(got, wanted, atol=1e-5)


def test_names_from_before_are_read_and_what_was_one_is_split(tmp_path: Path) -> None:
    save(hf.Dinov2Model(hf.Dinov2Config(**DINO, use_swiglu_ffn=True)), tmp_path)
    new = encoder_of(tmp_path)
    new.load_pretrained()
    state = {key.removeprefix("network."): value for key, value in new.state_dict().items()}
    old = {}
    for key, value in state.items():
        if ".up_proj." in key:
            continue
        name = key.replace("attention.o_proj", "attention.output.dense").replace("mlp.down_proj", "mlp.weights_out")
        for short, long in (("q", "query"), ("k", "key"), ("v", "value")):
            name = name.replace(f"attention.{short}_proj", f"attention.attention.{long}")
        if ".gate_proj." in key:
            value = torch.cat([value, state[key.replace("gate", "up")]])  # noqa: PLW2901 - the file's tensor
        old[name.replace("gate_proj", "weights_in")] = value.contiguous()
    assert "encoder.layer.1.mlp.weights_in.weight" in old
    save_file(old, tmp_path / "model.safetensors")
    again = encoder_of(tmp_path)
    assert len(again.load_pretrained().loaded) == len(state)
    assert all(torch.equal(value, again.state_dict()[f"network.{key}"]) for key, value in state.items())


def test_layers_that_are_not_read_are_not_built_and_their_weights_unused(tmp_path: Path) -> None:
    save(hf.SiglipVisionModel(hf.SiglipVisionConfig(**VIT)), tmp_path)
    encoder = encoder_of(tmp_path, layers=0)
    built = list(encoder.state_dict())
    assert not [key for key in built if "layers.1." in key or "head" in key or "norm." in key.replace("_norm", "")]
    unused = encoder.load_pretrained().unused
    assert {key.split("layers.")[1][0] for key in unused if "layers." in key} == {"1", "2"}
    assert [key for key in unused if "head" in key]
    assert [key for key in unused if "post_layernorm" in key]
    with_norm = encoder_of(tmp_path, layers=0, norm=True)
    assert "norm.weight" in with_norm.load_pretrained().loaded


def test_weights_in_half_precision_become_those_of_the_encoder(tmp_path: Path) -> None:
    save(hf.ViTModel(hf.ViTConfig(**VIT), add_pooling_layer=False).half(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    encoder = encoder_of(tmp_path)
    encoder.load_pretrained()
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    with torch.device("meta"):
        planned = encoder_of(tmp_path)
    planned.load_pretrained()
    assert {value.dtype for value in planned.parameters()} == {torch.float32}
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in planned.state_dict().items())


def test_a_table_that_no_file_holds_is_computed_for_a_network_on_meta(tmp_path: Path) -> None:
    save(hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT)), tmp_path)
    with torch.device("meta"):
        encoder = encoder_of(tmp_path)
    encoder.load_pretrained()
    assert torch.equal(encoder.network.rope_embeddings.inv_freq, encoder_of(tmp_path).network.rope_embeddings.inv_freq)


def test_pickles_are_read_where_there_are_no_safetensors(tmp_path: Path) -> None:
    save(hf.ViTModel(hf.ViTConfig(**VIT)), tmp_path)
    want = encoder_of(tmp_path)
    want.load_pretrained()
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    encoder = encoder_of(tmp_path)
    assert encoder.load_pretrained().source.endswith("pytorch_model.bin")
    assert all(torch.equal(value, want.state_dict()[key]) for key, value in encoder.state_dict().items())


def test_weights_of_another_architecture_are_refused_with_the_keys(tmp_path: Path) -> None:
    save(hf.ConvNextModel(hf.ConvNextConfig(**STAGES)), tmp_path / "other")
    save(hf.ViTModel(hf.ViTConfig(**VIT)), tmp_path / "vit")
    encoder = encoder_of(tmp_path / "vit", weights=str(tmp_path / "other" / "model.safetensors"))
    with pytest.raises(WeightsError, match="weights of another architecture") as caught:
        encoder.load_pretrained()
    assert "unexpected encoder.stages.0" in str(caught.value) or "missing network." in str(caught.value)


def test_a_key_of_another_shape_and_one_too_many_are_refused(tmp_path: Path) -> None:
    save(hf.ViTModel(hf.ViTConfig(**VIT)), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for wrong, said in (
        ({"embeddings.cls_token": torch.zeros(1, 1, 8)}, r"cls_token: file has \(1, 1, 8\), model wants \(1, 1, 32\)"),
        ({"adapter.weight": torch.zeros(2)}, "unexpected adapter.weight"),
        ({"vit.embeddings.cls_token": torch.zeros(1, 1, 32)}, "both .* and .* are embeddings.cls_token"),
    ):
        save_file({**state, **wrong}, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=said):
            encoder_of(tmp_path).load_pretrained()


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    save(hf.ViTModel(hf.ViTConfig(**VIT)), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="not readable as weights, perhaps truncated"):
        encoder_of(tmp_path).load_pretrained()


def test_a_file_without_some_weights_never_leaves_random_ones(tmp_path: Path) -> None:
    save(hf.ViTModel(hf.ViTConfig(**VIT)), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gone = next(key for key in state if "layer.1." in key or "layers.1." in key)
    del state[gone]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing network\.layers\.1\."):
        encoder_of(tmp_path).load_pretrained()


def test_a_config_that_contradicts_the_known_facts_is_refused(tmp_path: Path) -> None:
    kind = register_encoders()["clip-l-336"]
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    hf.CLIPVisionConfig(hidden_size=1024, num_attention_heads=16, patch_size=14, image_size=224).save_pretrained(
        tmp_path
    )
    with torch.device("meta"):
        encoder = kind(kind.Options(weights=str(tmp_path / "model.safetensors"), layers=0))
    with pytest.raises(WeightsError, match="image_size is 224, expected 336") as caught:
        encoder.load_pretrained()
    assert "num_hidden_layers is 12, expected 24" in str(caught.value)


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    kind = register_encoders()["clip-l-336"]
    place = kind.weights(kind.Options())
    assert place.path is None
    assert place.install.startswith("hf download openai/clip-vit-large-patch14-336")
    hf.ViTConfig(**VIT).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no weights on this machine"):
        encoder_of(tmp_path).load_pretrained()
