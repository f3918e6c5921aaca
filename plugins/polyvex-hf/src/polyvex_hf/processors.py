"""What image processors do, as transformers writes it down: defaults of its classes, and constants of families."""

from typing import Any

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
BILINEAR, BICUBIC = 2, 3  # as PIL counts them

Settings = dict[str, Any]
"""The keys and values of a ``preprocessor_config.json``."""

_CLIP: Settings = {
    "size": {"shortest_edge": 224},
    "crop_size": 224,
    "do_center_crop": True,
    "resample": BICUBIC,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
_HALF: Settings = {"size": {"height": 224, "width": 224}, "image_mean": HALF, "image_std": HALF}

PROCESSORS: dict[str, Settings] = {
    "CLIP": _CLIP,
    "ChineseCLIP": _CLIP,
    "Bit": _CLIP,
    "Siglip": {**_HALF, "resample": BICUBIC},
    "ViT": {**_HALF, "resample": BILINEAR},
    "Beit": {**_HALF, "crop_size": 224, "resample": BICUBIC},
    "DeiT": {
        **_HALF,
        "size": {"height": 256, "width": 256},
        "crop_size": 224,
        "do_center_crop": True,
        "resample": BICUBIC,
    },
    "ConvNext": {**_HALF, "size": {"shortest_edge": 384}, "crop_pct": 224 / 256, "resample": BICUBIC},
    "DINOv3ViT": {
        "size": {"height": 224, "width": 224},
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": BILINEAR,
    },
}
"""What a class of transformers does where a file is silent, by the start of the class's name."""

_IMAGENET: Settings = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "resample": BICUBIC}
_DINOV2 = {**_IMAGENET, "image_processor_type": "Bit", "size": {"shortest_edge": 256}, "crop_size": 224}

CONSTANTS: dict[str, Settings] = {
    "clip_vision_model": {"image_processor_type": "CLIP"},
    "siglip_vision_model": {"image_processor_type": "Siglip"},
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_vit": {"image_processor_type": "DINOv3ViT"},
    "dinov3_convnext": {"image_processor_type": "DINOv3ViT"},
    "vit": {"image_processor_type": "ViT"},
    "vit_mae": {**_IMAGENET, "image_processor_type": "ViT"},
    "deit": {**_IMAGENET, "image_processor_type": "DeiT"},
    "beit": {"image_processor_type": "Beit"},
    "convnext": {**_IMAGENET, "image_processor_type": "ConvNext"},
    "convnextv2": {**_IMAGENET, "image_processor_type": "ConvNext"},
    "resnet": {**_IMAGENET, "image_processor_type": "ConvNext"},
    "swin": {**_IMAGENET, "image_processor_type": "ViT"},
    "swinv2": {**_IMAGENET, "image_processor_type": "ViT"},
}
"""What a family's published checkpoints are used with, for a checkpoint that comes without a file of its own."""
