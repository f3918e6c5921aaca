"""Families whose hidden states are sequences: which tokens stand in front of the patches, and where the norm is."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a sequence's numbers cannot tell by themselves.

    ``front`` names the parameters of the network's ``embeddings`` that put tokens before the patches; how many each
    puts there is read from its shape. ``norm`` names the final norm.
    """

    front: tuple[str, ...]
    norm: str


FAMILIES = {
    "clip_vision_model": Family(front=("class_embedding",), norm="post_layernorm"),
    "chinese_clip_vision_model": Family(front=("class_embedding",), norm="post_layernorm"),
    "siglip_vision_model": Family(front=(), norm="post_layernorm"),
    "dinov2": Family(front=("cls_token",), norm="layernorm"),
    "dinov2_with_registers": Family(front=("cls_token", "register_tokens"), norm="layernorm"),
    "dinov3_vit": Family(front=("cls_token", "register_tokens"), norm="norm"),
    "vit": Family(front=("cls_token",), norm="layernorm"),
    "vit_mae": Family(front=("cls_token",), norm="layernorm"),
    "vit_msn": Family(front=("cls_token",), norm="layernorm"),
    "ijepa": Family(front=(), norm="layernorm"),
    "deit": Family(front=("cls_token", "distillation_token"), norm="layernorm"),
    "beit": Family(front=("cls_token",), norm="layernorm"),
    "data2vec-vision": Family(front=("cls_token",), norm="layernorm"),
}
"""By transformers' ``model_type``. A family that is not here must give out maps, whose axes prove themselves."""

NORMS = ("layernorm", "layer_norm", "norm")
"""Names that the final norm has in families that give out maps."""
