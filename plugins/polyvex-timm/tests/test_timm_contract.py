"""The contract, for one small model of each family, at fresh weights."""

from typing import Any

import pytest
from polyvex_timm import TimmEncoder, TimmOptions, register_encoders
from polyvex_timm.named import CHECKPOINTS

from polyvex.encoders import License
from polyvex.testing import check_encoder
from polyvex.tokens import Grid

FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"checkpoint": "vit_tiny_patch16_224", "image_size": 64},
    "registers": {"checkpoint": "vit_small_patch14_reg4_dinov2", "image_size": 56, "layers": [0, 1]},
    "siglip": {"checkpoint": "vit_base_patch16_siglip_256", "image_size": 64, "layers": 0},
    "eva": {"checkpoint": "eva02_tiny_patch14_224", "image_size": 56, "layers": 1},
    "dinov3": {"checkpoint": "vit_small_patch16_dinov3", "image_size": 64, "layers": 1},
    "convnext, stage 0": {"checkpoint": "convnext_atto", "image_size": 32, "layers": 0},
    "convnext, stage 1": {"checkpoint": "convnext_atto", "image_size": 32, "layers": 1},
    "convnext, stage 2": {"checkpoint": "convnext_atto", "image_size": 64, "layers": 2},
    "convnext, stage 3": {"checkpoint": "convnext_atto", "image_size": 128, "layers": 3},
    "efficientnet": {"checkpoint": "efficientnet_b0", "image_size": 64, "layers": 3},
    "swin": {"checkpoint": "swin_tiny_patch4_window7_224", "image_size": 112, "layers": 1},
    "rectangle": {"checkpoint": "vit_tiny_patch16_224", "image_size": [32, 64], "layers": -2, "norm": False},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_keeps_the_contract(family: str) -> None:
    check_encoder(TimmEncoder, TimmOptions(**FAMILIES[family]))


def test_named_ones_exist_in_timm_and_fit_their_own_size() -> None:
    import timm

    assert set(CHECKPOINTS.values()) <= set(timm.list_pretrained())
    named = register_encoders()
    assert set(named) == {"timm", *CHECKPOINTS}
    assert named["siglip-b-256"].Options().checkpoint == "vit_base_patch16_siglip_256.webli"


@pytest.mark.parametrize(("stage", "stride", "dim"), [(0, 4, 192), (1, 8, 384), (2, 16, 768), (3, 32, 1536)])
def test_a_stage_of_convnext_is_told_by_its_stride_and_width(stage: int, stride: int, dim: int) -> None:
    """Strides and ConvNeXt-L's widths as in arXiv:2201.03545, section 3."""
    kind = register_encoders()["convnext-l-384"]
    facts = kind.describe(kind.Options.model_validate({"layers": stage, "image_size": 64}))

    assert facts.shape.grid == Grid(rows=64 // stride, cols=64 // stride)
    assert facts.shape.dim == dim


def test_a_licence_that_is_called_unknown_does_not_allow_commerce() -> None:
    import timm

    checkpoint = next(name for name in timm.list_pretrained() if timm.get_pretrained_cfg(name).license == "unknown")

    assert TimmEncoder.describe(TimmOptions(checkpoint=checkpoint)).license == License(
        name="unknown (timm names none)", commercial=False
    )


@pytest.mark.parametrize(
    ("name", "tokens", "dim"),
    [("dinov2-vit-s", 37 * 37, 384), ("siglip-b-256", 256, 768), ("efficientnet-b0", 7 * 7, 320)],
)
def test_facts_of_named_ones(name: str, tokens: int, dim: int) -> None:
    kind = register_encoders()[name]
    facts = kind.describe(kind.Options())
    assert (facts.shape.tokens, facts.shape.dim) == (tokens, dim)
