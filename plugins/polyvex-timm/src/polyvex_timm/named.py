"""Names for models that people ask for, each with its own weights; all take the options of ``timm``."""

from pydantic import Field, create_model

from polyvex_timm.encoder import TimmEncoder, TimmOptions

CHECKPOINTS = {
    "dinov2-vit-s": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-vit-b": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-vit-l": "vit_large_patch14_dinov2.lvd142m",
    "dinov2-vit-g": "vit_giant_patch14_dinov2.lvd142m",
    "dinov3-vit-s": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3-vit-b": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3-vit-l": "vit_large_patch16_dinov3.lvd1689m",
    "siglip-b-256": "vit_base_patch16_siglip_256.webli",
    "siglip-so400m-384": "vit_so400m_patch14_siglip_384.webli",
    "siglip2-b-256": "vit_base_patch16_siglip_256.v2_webli",
    "siglip2-so400m-384": "vit_so400m_patch16_siglip_384.v2_webli",
    "eva02-l-448": "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
    "convnext-l-384": "convnext_large.fb_in22k_ft_in1k_384",
    "convnext-xxl-clip": "convnext_xxlarge.clip_laion2b_soup",
    "mae-vit-l": "vit_large_patch16_224.mae",
    "mae-vit-h": "vit_huge_patch14_224.mae",
    "efficientnet-b0": "efficientnet_b0.ra_in1k",
}
"""Name in recipes to timm's name with the tag of its weights."""


def named_encoders() -> dict[str, type[TimmEncoder]]:
    """One class for each name; it differs from ``timm`` in the checkpoint that it takes if none is given."""
    return {name: _named(name, checkpoint) for name, checkpoint in CHECKPOINTS.items()}


def _named(name: str, checkpoint: str) -> type[TimmEncoder]:
    title = "".join(part.title() for part in name.split("-"))
    described = TimmOptions.model_fields["checkpoint"].description
    options = create_model(
        f"{title}Options", __base__=TimmOptions, checkpoint=(str, Field(default=checkpoint, description=described))
    )
    facts = {"Options": options, "summary": f"timm's {checkpoint}", "__doc__": f"timm's ``{checkpoint}``."}
    return type(title, (TimmEncoder,), facts)
