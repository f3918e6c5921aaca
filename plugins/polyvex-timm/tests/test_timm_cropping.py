"""An encoder says that it crops exactly where its transform loses a part of the image."""

import pytest
import timm
from PIL import Image
from polyvex_timm import TimmEncoder, TimmOptions
from polyvex_timm.cropping import cuts_border, timms_own_transform

CHECKPOINTS = {
    "vit_tiny_patch16_224.augreg_in21k": True,  # keeps 0.9 of the middle
    "vit_small_patch14_dinov2.lvd142m": True,  # keeps all of the shorter side, in the image's own aspect
    "convnext_large.fb_in22k_ft_in1k_384": False,  # squashed
    "deepseek_vit_412m.deepseek_v4_1_flash": False,  # padded
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_border_is_lost_where_it_says_so(checkpoint: str) -> None:
    config = timm.get_pretrained_cfg(checkpoint)
    assert config is not None
    wide = Image.new("RGB", (200, 100), "black")
    wide.paste("white", (0, 0, 20, 100))
    pixels = timms_own_transform(config, (64, 64))(wide)
    white = [(1 - mean) / std for mean, std in zip(config.mean, config.std, strict=True)]
    seen = bool(((pixels.amax(dim=(1, 2)) - pixels.new_tensor(white)).abs() < 0.1).all())

    assert cuts_border(config) is CHECKPOINTS[checkpoint] is not seen


def test_a_squashed_crop_is_still_a_crop() -> None:
    config = timm.get_pretrained_cfg("convnext_large.fb_in22k_ft_in1k_384")
    assert config is not None
    config.crop_pct = 0.9

    assert cuts_border(config)


def test_facts_say_it_for_the_option() -> None:
    def crops(checkpoint: str, **options: str) -> bool:
        options = {"checkpoint": checkpoint, **options}
        return TimmEncoder.describe(TimmOptions.model_validate(options)).crops

    assert crops("vit_small_patch14_dinov2.lvd142m", resize="crop")
    assert not crops("vit_small_patch14_dinov2.lvd142m", resize="squash")
    assert not crops("vit_small_patch14_dinov2.lvd142m")
    assert not crops("convnext_large.fb_in22k_ft_in1k_384", resize="crop")
