"""Each family against transformers itself: a small seeded model, saved by it and read through the plugin."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from polyvex_hf import HfEncoder, HfOptions

from polyvex.model import PolyvexConfig, PolyvexForConditionalGeneration
from polyvex.testing import check_encoder

VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}
DINO = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
BIASED = {"use_relative_position_bias": True, "use_mask_token": True}
SWIN = {"embed_dim": 8, "depths": [1, 2, 1], "num_heads": [1, 1, 2], "window_size": 4, "image_size": 64}

FAMILIES: dict[str, tuple[Any, int]] = {
    "clip": (hf.CLIPVisionConfig(**VIT), 1),
    "siglip": (hf.SiglipVisionConfig(**VIT), 0),
    "dinov2": (hf.Dinov2Config(**DINO), 1),
    "dinov2 with gated units": (hf.Dinov2Config(**DINO, use_swiglu_ffn=True), 1),
    "dinov2 with registers": (hf.Dinov2WithRegistersConfig(**DINO), 5),
    "dinov3": (hf.DINOv3ViTConfig(**VIT, num_register_tokens=4), 5),
    "vit": (hf.ViTConfig(**VIT), 1),
    "vit_msn": (hf.ViTMSNConfig(**VIT), 1),
    "ijepa": (hf.IJepaConfig(**VIT), 0),
    "deit": (hf.DeiTConfig(**VIT), 2),
    "beit": (hf.BeitConfig(**VIT, **BIASED), 1),
    "data2vec": (hf.Data2VecVisionConfig(**VIT, **BIASED), 1),
}
"""Families whose hidden states are sequences, each with how many tokens stand before the patches."""

MAPS: dict[str, Any] = {
    "convnext": hf.ConvNextConfig(**STAGES, image_size=64),
    "convnextv2": hf.ConvNextV2Config(**STAGES, image_size=64),
    "dinov3_convnext": hf.DINOv3ConvNextConfig(**STAGES, image_size=64),
    "resnet": hf.ResNetConfig(**STAGES, embedding_size=8, layer_type="basic"),
    "swin": hf.SwinConfig(**SWIN),
    "swin with positions": hf.SwinConfig(**SWIN, use_absolute_embeddings=True),
    "swinv2": hf.Swinv2Config(**SWIN),
}

SETTINGS = {"image_processor_type": "ViTImageProcessor"}


def saved(config: Any, folder: Path) -> Any:
    """transformers' own model with seeded weights, in eval mode; its files are in ``folder``."""
    torch.manual_seed(7)
    model = hf.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for value in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point() and b.ndim == 1)]:
            value.add_(torch.rand_like(value) * 0.1)  # nothing may stay 0 or 1, or a mistake would not show
    model.save_pretrained(folder)
    hf.ViTImageProcessorPil().save_pretrained(folder)
    return hf.AutoModel.from_pretrained(folder).eval()


def read(folder: Path, pixels: torch.Tensor, **options: Any) -> torch.Tensor:
    encoder = HfEncoder(HfOptions(checkpoint=str(folder), **options)).eval()
    report = encoder.load_pretrained()
    assert report.missing == []
    with torch.no_grad():
        return encoder(pixels).values


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_of_each_layer_are_transformers_hidden_states(family: str, tmp_path: Path) -> None:
    config, front = FAMILIES[family]
    model = saved(config, tmp_path)
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True).hidden_states
    assert hidden[0].shape[1] == front + 16
    assert close(read(tmp_path, pixels), hidden[2][:, front:])
    both = torch.cat([hidden[3], hidden[1]], dim=-1)[:, front:]
    assert close(read(tmp_path, pixels, layers=[-1, 0]), both)


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"clip", "beit", "data2vec"}))
def test_with_the_norm_the_last_tokens_are_transformers_own(family: str, tmp_path: Path) -> None:
    config, front = FAMILIES[family]
    model = saved(config, tmp_path)
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        wanted = model(pixels).last_hidden_state[:, front:]
    assert close(read(tmp_path, pixels, layers=-1, norm=True), wanted)


@pytest.mark.parametrize("family", [*FAMILIES, "swin with positions"])
def test_another_size_is_read_by_the_networks_own_interpolation(family: str, tmp_path: Path) -> None:
    config, front = FAMILIES[family] if family in FAMILIES else (MAPS[family], 0)
    model = saved(config, tmp_path)
    pixels = torch.randn(1, 3, 2 * config.image_size, config.image_size)
    own = {} if "dino" in family else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True, **own).hidden_states
    got = read(tmp_path, pixels, layers=1, image_size=list(pixels.shape[-2:]))
    assert close(got, hidden[2][:, front:])


def test_mae_sees_all_patches_in_their_order(tmp_path: Path) -> None:
    config = hf.ViTMAEConfig(**VIT)
    saved(config, tmp_path)
    plain = hf.ViTModel(hf.ViTConfig(**VIT), add_pooling_layer=False).eval()  # the same network, without any masking
    plain.load_state_dict(hf.ViTMAEModel.from_pretrained(tmp_path).state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        hidden = plain(pixels, output_hidden_states=True).hidden_states
    assert close(read(tmp_path, pixels, layers=-2), hidden[2][:, 1:])
    assert close(read(tmp_path, pixels, layers=-1), hidden[3][:, 1:])


@pytest.mark.parametrize("family", MAPS)
def test_maps_of_each_stage_are_transformers_hidden_states(family: str, tmp_path: Path) -> None:
    model = saved(MAPS[family], tmp_path)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = model(pixels, output_hidden_states=True)
    maps = output.get("reshaped_hidden_states") or output.hidden_states
    for layer in (0, len(maps) - 2):
        assert close(read(tmp_path, pixels, layers=layer, image_size=64), maps[layer + 1].flatten(2).mT)
    assert close(read(tmp_path, pixels, image_size=64), maps[-2].flatten(2).mT)


def test_stages_that_are_not_read_are_not_built(tmp_path: Path) -> None:
    saved(MAPS["swin"], tmp_path)
    encoder = HfEncoder(HfOptions(checkpoint=str(tmp_path), layers=0))
    assert len(encoder.network.encoder.layers) == 1
    unused = encoder.load_pretrained().unused
    assert {key.split("encoder.layers.")[1][0] for key in unused if "encoder.layers." in key} == {"1", "2"}


def test_where_transformers_norms_less_the_norm_is_still_put_on_every_place(tmp_path: Path) -> None:
    """CLIP's own forward norms the class token alone, ConvNeXt's the mean of all places."""
    pixels = torch.randn(1, 3, 64, 64)
    clip, convnext = saved(FAMILIES["clip"][0], tmp_path / "clip"), saved(MAPS["convnext"], tmp_path / "convnext")
    with torch.no_grad():
        patches = clip.post_layernorm(clip(pixels, output_hidden_states=True).hidden_states[-1][:, 1:])
        places = convnext.layernorm(convnext(pixels).last_hidden_state.flatten(2).mT)
    assert close(read(tmp_path / "clip", pixels, layers=-1, norm=True), patches)
    assert close(read(tmp_path / "convnext", pixels, layers=-1, norm=True), places)


@pytest.mark.parametrize("family", sorted({*FAMILIES, "vit_mae", *MAPS} - {"dinov2", "swin with positions"}))
def test_each_family_keeps_the_contract(family: str, tmp_path: Path) -> None:
    config = {**{name: known for name, (known, _) in FAMILIES.items()}, **MAPS, "vit_mae": hf.ViTMAEConfig(**VIT)}[
        family
    ]
    saved(config, tmp_path)
    layer = 0 if family in MAPS else 1
    size = 32 if family in ("convnext", "convnextv2", "dinov3_convnext", "resnet") else None
    check_encoder(HfEncoder, HfOptions(checkpoint=str(tmp_path), layers=layer, image_size=size), pretrained=True)


def test_tables_that_transformers_keeps_can_be_trained_through_after_a_look_in_inference_mode(tmp_path: Path) -> None:
    saved(hf.BeitConfig(**{**VIT, "image_size": 48}, **BIASED), tmp_path)
    encoder = HfEncoder(HfOptions(checkpoint=str(tmp_path)))
    pixels = torch.randn(1, 3, 48, 48)
    with torch.inference_mode():
        encoder(pixels)
    encoder(pixels).values.sum().backward()
    assert encoder.network.embeddings.cls_token.grad is not None


def test_a_model_with_such_encoders_is_saved_and_loaded_bit_by_bit(tmp_path: Path) -> None:
    """transformers renames keys of its own networks on the way to a file, also where they are parts of another."""
    tables = []
    for family in ("clip", "dinov2 with gated units", "dinov3", "swin"):
        config = {**{name: known for name, (known, _) in FAMILIES.items()}, **MAPS}[family]
        saved(config, tmp_path / family)
        tables.append({"use": "hf", "name": family.split()[0], "checkpoint": str(tmp_path / family), "layers": 1})
    text = hf.LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = PolyvexConfig(
        positions={"use": "sequential"}, text_config=text, encoders=tables, fusion={"use": "mlp"}, image_token_id=1
    )
    model = PolyvexForConditionalGeneration(config)
    for encoder in model.encoders.values():
        encoder.load_pretrained()  # type: ignore[operator]
    model.save_pretrained(tmp_path / "model")
    again = PolyvexForConditionalGeneration.from_pretrained(tmp_path / "model")
    kept, state = model.encoders.state_dict(), again.encoders.state_dict()
    assert set(kept) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in kept.items())
