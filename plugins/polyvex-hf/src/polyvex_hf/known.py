"""Facts of well-known checkpoints, so that they can be planned before anything of them is on this machine."""

from dataclasses import dataclass
from typing import Any

from polyvex.encoders import License


@dataclass(frozen=True, kw_only=True)
class Known:
    """A checkpoint on the hub: the values of its ``config.json`` that its structure depends on, licence and origin."""

    model_type: str
    config: dict[str, Any]
    license: License
    source: str


def _clip(image_size: int) -> Known:
    return Known(
        model_type="clip_vision_model",
        config={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": image_size,
            "patch_size": 14,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
        license=License(name="MIT", commercial=True),
        source="OpenAI's CLIP ViT-L/14: contrastive, on 400 million images with text, arXiv:2103.00020",
    )


KNOWN = {
    "openai/clip-vit-large-patch14-336": _clip(336),
    "openai/clip-vit-large-patch14": _clip(224),
    "google/siglip-so400m-patch14-384": Known(
        model_type="siglip_vision_model",
        config={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
        },
        license=License(name="Apache-2.0", commercial=True),
        source="Google's SigLIP SoViT-400m/14: image and text by a sigmoid loss, on WebLI, arXiv:2303.15343",
    ),
    "facebook/dinov2-giant": Known(
        model_type="dinov2",
        config={
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 24,
            "mlp_ratio": 4,
            "use_swiglu_ffn": True,
            "image_size": 518,
            "patch_size": 14,
            "layer_norm_eps": 1e-6,
        },
        license=License(name="Apache-2.0", commercial=True),
        source="Meta's DINOv2 ViT-g/14: self-supervised on LVD-142M, arXiv:2304.07193",
    ),
    "facebook/vit-mae-huge": Known(
        model_type="vit_mae",
        config={
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "hidden_act": "gelu",
        },
        license=License(name="CC-BY-NC-4.0 (its authors' repository; the hub says Apache-2.0)", commercial=False),
        source="Meta's MAE ViT-H/14: masked auto-encoding on ImageNet-1k, arXiv:2111.06377",
    ),
    "facebook/convnext-large-384-22k-1k": Known(
        model_type="convnext",
        config={"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3], "hidden_act": "gelu"},
        license=License(name="Apache-2.0", commercial=True),
        source="Meta's ConvNeXt-L: classes of ImageNet-22k, then of ImageNet-1k, arXiv:2201.03545",
    ),
    "microsoft/swin-large-patch4-window12-384-in22k": Known(
        model_type="swin",
        config={
            "embed_dim": 192,
            "depths": [2, 2, 18, 2],
            "num_heads": [6, 12, 24, 48],
            "window_size": 12,
            "image_size": 384,
            "patch_size": 4,
            "hidden_act": "gelu",
        },
        license=License(name="MIT", commercial=True),
        source="Microsoft's Swin-L: classes of ImageNet-22k, arXiv:2103.14030",
    ),
}
"""By name on the hub. A value that is not stated is transformers' default for the family."""
