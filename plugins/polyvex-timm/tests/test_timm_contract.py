"""The contract, for one small model of each family, at fresh weights."""

from typing import Any

import pytest
from polyvex_timm import TimmEncoder, TimmOptions, register_encoders
from polyvex_timm.named import CHECKPOINTS

from polyvex.testing import check_encoder

FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"checkpoint": "vit_tiny_patch16_224", "image_size": 64},
    "registers": {"checkpoint": "vit_small_patch14_reg4_dinov2", "image_size": 56, "layers": [0, 1]},
    "siglip": {"checkpoint": "vit_base_patch16_siglip_256", "image_size": 64, "layers": 0},
    "eva": {"checkpoint": "eva02_tiny_patch14_224", "image_size": 56, "layers": 1},
    "dinov3": {"checkpoint": "vit_small_patch16_dinov3", "image_size": 64, "layers": 1},
    "convnext": {"checkpoint": "convnext_atto", "image_size": 64, "layers": 2},
    "efficientnet": {"checkpoint": "efficientnet_b0", "image_size": 64, "layers": 3},
    "swin": {"checkpoint": "swin_tiny_patch4_window7_224", "image_size": 224, "layers": 1},
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


@pytest.mark.parametrize(
    ("name", "tokens", "dim"),
    [("dinov2-vit-s", 37 * 37, 384), ("siglip-b-256", 256, 768), ("efficientnet-b0", 7 * 7, 320)],
)
def test_facts_of_named_ones(name: str, tokens: int, dim: int) -> None:
    kind = register_encoders()[name]
    facts = kind.describe(kind.Options())
    assert (facts.shape.tokens, facts.shape.dim) == (tokens, dim)
