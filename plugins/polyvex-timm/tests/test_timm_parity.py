"""Against timm itself: the same tokens and pixels as its own functions give, at seeded random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from polyvex_timm import TimmEncoder, TimmOptions
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from polyvex.errors import WeightsError


def picture() -> Image.Image:
    return Image.effect_noise((90, 70), 60).convert("RGB")


def upstream(name: str, size: int, path: Path) -> Any:
    """timm's own model with seeded weights, saved as timm's users save it."""
    torch.manual_seed(5)
    sized = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    model = timm.create_model(name, pretrained=False, **sized).eval()
    with torch.no_grad():
        for module in model.modules():  # running statistics of a batch norm would hide a mistake if they were 0 and 1
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    save_file(model.state_dict(), path)
    return model


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 64),
        ("vit_small_patch14_reg4_dinov2", 56),
        ("vit_base_patch16_siglip_256", 64),
        ("eva02_tiny_patch14_224", 56),
        ("vit_small_patch16_dinov3", 64),
    ],
)
def test_last_tokens_are_those_of_forward_features(name: str, size: int, tmp_path: Path) -> None:
    model = upstream(name, size, tmp_path / "weights.safetensors")
    encoder = TimmEncoder(
        TimmOptions(checkpoint=name, image_size=size, weights=str(tmp_path / "weights.safetensors"))
    ).eval()
    report = encoder.load_pretrained()
    assert report.missing == []
    pixels = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        wanted = model.forward_features(pixels)[:, model.num_prefix_tokens :]
        assert torch.allclose(encoder(pixels).values, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "stage", "module"),
    [
        ("convnext_atto", 0, "stages.0"),
        ("convnext_atto", 1, "stages.1"),
        ("convnext_atto", 2, "stages.2"),
        ("convnext_atto", 3, "stages.3"),
        ("efficientnet_b0", 4, "blocks.6"),
        ("swin_tiny_patch4_window7_224", 1, "layers.1"),
    ],
)
def test_maps_are_what_the_stage_gives_in_timms_own_forward(name: str, stage: int, module: str, tmp_path: Path) -> None:
    size = 224 if name.startswith("swin") else 64
    model = upstream(name, size, tmp_path / "weights.safetensors")
    options = TimmOptions(
        checkpoint=name, image_size=size, layers=stage, norm=False, weights=str(tmp_path / "weights.safetensors")
    )
    encoder = TimmEncoder(options).eval()
    encoder.load_pretrained()
    seen: list[torch.Tensor] = []
    model.get_submodule(module).register_forward_hook(lambda _, inputs, output: seen.append(output))
    pixels = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        model(pixels)
        wanted = seen[0].flatten(1, 2) if name.startswith("swin") else seen[0].flatten(2).mT
        assert torch.allclose(encoder(pixels).values, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_tiny_hnf"])
def test_the_last_map_is_that_of_forward_features(name: str, tmp_path: Path) -> None:
    """With the norm where the family has one before its head (hnf), and without where it has none."""
    model = upstream(name, 64, tmp_path / "weights.safetensors")
    encoder = TimmEncoder(
        TimmOptions(checkpoint=name, image_size=64, weights=str(tmp_path / "weights.safetensors"))
    ).eval()
    encoder.load_pretrained()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(encoder(pixels).values, model.forward_features(pixels).flatten(2).mT, atol=1e-5)


def test_weights_are_taken_out_of_a_training_checkpoint(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    model = upstream(name, 64, tmp_path / "weights.safetensors")
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "last.pth.tar")
    encoder = TimmEncoder(TimmOptions(checkpoint=name, image_size=64, weights=str(tmp_path / "last.pth.tar")))

    encoder.load_pretrained()

    assert torch.equal(encoder.network.patch_embed.proj.weight, model.patch_embed.proj.weight)


def test_positions_are_resampled_as_timm_does(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    model = upstream(name, 224, tmp_path / "weights.safetensors")
    encoder = TimmEncoder(TimmOptions(checkpoint=name, image_size=64, weights=str(tmp_path / "weights.safetensors")))
    assert encoder.load_pretrained().reshaped == ["pos_embed"]
    model.set_input_size((64, 64))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(encoder.eval()(pixels).values, model.forward_features(pixels)[:, 1:], atol=1e-5)


def test_pixels_are_those_of_timms_own_transform() -> None:
    options = TimmOptions(checkpoint="vit_tiny_patch16_224.augreg_in21k", image_size=64, resize="crop")
    settings = timm.get_pretrained_cfg(options.checkpoint).to_dict()
    wanted = create_transform(
        **resolve_data_config({"input_size": (3, 64, 64)}, pretrained_cfg=settings), is_training=False
    )
    image = picture()
    assert torch.allclose(TimmEncoder(options).transform(image), wanted(image), atol=1e-6)  # type: ignore[operator]


def test_squashed_pixels_have_the_weights_interpolation_mean_and_deviation() -> None:
    options = TimmOptions(checkpoint="vit_tiny_patch16_224.augreg_in21k", image_size=64)
    settings = timm.get_pretrained_cfg(options.checkpoint)
    assert settings.interpolation == "bicubic"
    image = picture()
    small = image.resize((64, 64), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.asarray(small, dtype=np.float32)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (settings.mean, settings.std))
    assert torch.allclose(TimmEncoder(options).transform(image), (values - mean) / std, atol=1e-6)


def test_nothing_is_cut_by_default() -> None:
    options = TimmOptions(checkpoint="vit_tiny_patch16_224.augreg_in21k", image_size=64)
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (0, 0, 4, 50))  # a stripe at the border, which a crop would lose
    pixels = TimmEncoder(options).transform(image)
    assert pixels.shape == (3, 64, 64)
    assert (pixels[:, :, 0] > 0.9).all()


def test_layers_are_joined_in_their_order(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    upstream(name, 64, tmp_path / "weights.safetensors")

    def tokens(layers: Any) -> torch.Tensor:
        options = TimmOptions(
            checkpoint=name, image_size=64, layers=layers, norm=False, weights=str(tmp_path / "weights.safetensors")
        )
        encoder = TimmEncoder(options).eval()
        encoder.load_pretrained()
        with torch.inference_mode():
            return encoder(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)).values

    assert torch.allclose(tokens([1, 5]), torch.cat([tokens(1), tokens(5)], dim=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "vit_tinny_patch16_224"}, "timm has no model 'vit_tinny_patch16_224'. Near: "),
        ({"checkpoint": "vit_tiny_patch16_224.none"}, "timm has no weights 'none' for 'vit_tiny_patch16_224'. Known: "),
        ({"checkpoint": "vit_tiny_patch16_224", "image_size": 65}, "65x65 is not a multiple of the 16x16 patches"),
        ({"checkpoint": "vit_tiny_patch16_224", "layers": 12}, "layers [12] do not fit 'vit_tiny_patch16_224'"),
        ({"checkpoint": "convnext_atto", "layers": [0, 3]}, "have the grids 56x56, 7x7, which cannot be joined"),
    ],
)
def test_options_that_cannot_be_are_refused_with_a_way_out(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is checked below
        TimmEncoder.describe(TimmOptions(**options))
    assert said in str(caught.value)


def test_weights_of_another_model_are_refused_with_the_keys(tmp_path: Path) -> None:
    upstream("convnext_atto", 64, tmp_path / "weights.safetensors")
    options = TimmOptions(
        checkpoint="vit_tiny_patch16_224", image_size=64, weights=str(tmp_path / "weights.safetensors")
    )
    with pytest.raises(WeightsError, match="weights of another architecture"):
        TimmEncoder(options).load_pretrained()


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 no zip"])
def test_a_file_that_is_none_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    options = TimmOptions(checkpoint="vit_tiny_patch16_224", image_size=64, weights=str(tmp_path / "weights.pth"))
    with pytest.raises(WeightsError, match="not readable as weights"):
        TimmEncoder(options).load_pretrained()


def test_missing_weights_say_how_to_get_them() -> None:
    options = TimmOptions(checkpoint="vit_tiny_patch16_224.augreg_in21k")
    place = TimmEncoder.weights(options)
    assert place.path is None
    assert place.install.startswith("hf download timm/vit_tiny_patch16_224.augreg_in21k model.safetensors")
    with pytest.raises(WeightsError, match="no weights on this machine"):
        TimmEncoder(options).load_pretrained()
