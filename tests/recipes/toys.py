"""Published recipes at toy size: their own shape, with small encoders of the same families and a small Llama.

What the recipe says stays: names, order and number of encoders, which layer and features are read, tiling and tuning,
fusion and scheme, prompt, stages and what they train. Networks, image sizes, grids, data and steps become small.
"""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import timm
import tomlkit
import torch
import transformers as hf
from polyvex_layoutlmv3 import LayoutLMv3, Structure
from polyvex_sam import SamEncoder
from polyvex_sam.structure import Variant
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions

Table = dict[str, Any]

VIT: Table = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
}
DINOV2: Table = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
HF: dict[str, Any] = {
    "clip": hf.CLIPVisionConfig(**VIT, patch_size=16),
    "dinov2": hf.Dinov2Config(**DINOV2, use_swiglu_ffn=True),
    "mae": hf.ViTMAEConfig(**VIT, patch_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2),
    "convnext": hf.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64),
}
"""All give 4 x 4 tokens; ConvNeXt does so behind its third stage."""

LM: Table = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
"""Sizes of language models of other families than Llama."""

TIMM = {
    "vit": ("test_vit.r160_in1k", 64),
    "eva": ("eva02_tiny_patch14_224", 56),
    "convnext": ("test_convnext.r160_in1k", 128),
}
"""Names and image sizes; all give 4 x 4 tokens."""

FAMILIES = {
    "clip-l-336": ("hf", "clip"),
    "clip-l-224": ("hf", "clip"),
    "hf-dinov2-giant": ("hf", "dinov2"),
    "hf-mae-huge": ("hf", "mae"),
    "hf-convnext-l-384": ("hf", "convnext"),
    "vit_large_patch16_siglip_384.webli": ("timm", "vit"),
    "siglip-so400m-384": ("timm", "vit"),
    "dinov2-vit-l": ("timm", "vit"),
    "dinov2-vit-g": ("timm", "vit"),
    "eva02-l-448": ("timm", "eva"),
    "convnext-xxl-clip": ("timm", "convnext"),
    "sam-vit-b": ("sam", "toy"),
    "sam-vit-l": ("sam", "toy"),
    "sam-vit-h": ("sam", "toy"),
    "layoutlmv3-large": ("layoutlmv3", "toy"),
}
"""What recipes name, and which family's toy stands for it."""

SAM = Variant(name="sam-toy", file="sam_toy.pth", dim=32, depth=4, heads=2, global_blocks=(1, 3), window=3, neck=24)
LAYOUTLMV3 = Structure(
    dim=32, layers=3, heads=2, hidden=48, coordinate_dim=6, shape_dim=4, vocabulary=60, positions=40, token_types=1
)


class SamToy(SamEncoder):
    """Segment Anything's encoder with four blocks."""

    variant = SAM
    summary = "for tests"


class LayoutLMv3Toy(LayoutLMv3):
    """LayoutLMv3 with three layers."""

    summary: ClassVar[str] = "for tests"
    structure: ClassVar[Structure] = LAYOUTLMV3
    repository: ClassVar[str] = "nobody/toy"


class ToyPlugin:
    """The two encoders whose packages offer real sizes only."""

    @hookimpl
    def register_encoders(self) -> dict[str, type[VisionEncoder]]:
        return {"sam-toy": SamToy, "layoutlmv3-toy": LayoutLMv3Toy}


class Toys:
    """Checkpoints in a folder, each written once, and the tables of encoders that read them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.made: dict[str, Table] = {}

    def encoder(self, table: Table) -> Table:
        """An encoder's table with a small network of the same family; what else it says stays."""
        kept = {key: value for key, value in table.items() if key not in ("use", "checkpoint", "image_size")}
        family, name = FAMILIES[table.get("checkpoint", table["use"])]
        if (key := f"{family}-{name}") not in self.made:
            torch.manual_seed(len(self.made))
            self.made[key] = getattr(self, family)(name)
        return {"name": table["use"], **kept, **self.made[key]}

    def hf(self, name: str) -> Table:
        path = self.folder / f"hf-{name}"
        hf.AutoModel.from_config(HF[name]).save_pretrained(path)
        hf.ViTImageProcessorPil().save_pretrained(path)
        return {"use": "hf", "checkpoint": str(path)}

    def timm(self, name: str) -> Table:
        checkpoint, size = TIMM[name]
        path = self.folder / f"timm-{name}.safetensors"
        save_file(timm.create_model(checkpoint, pretrained=False).state_dict(), path)
        return {"use": "timm", "checkpoint": checkpoint, "image_size": size, "weights": str(path)}

    def sam(self, name: str) -> Table:
        path = self.folder / SAM.file
        network = ImageEncoderViT(
            img_size=128,
            embed_dim=SAM.dim,
            depth=SAM.depth,
            num_heads=SAM.heads,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
            use_rel_pos=True,
            window_size=SAM.window,
            global_attn_indexes=SAM.global_blocks,
            out_chans=SAM.neck,
        )
        torch.save({f"image_encoder.{key}": value for key, value in network.state_dict().items()}, path)
        return {"use": f"sam-{name}", "image_size": 128, "weights": str(path)}

    def language_model(self, kind: str) -> Table:
        """A checkpoint of another family than Llama, with a tokenizer of bytes."""
        if kind not in self.made:
            path = self.folder / f"lm-{kind}"
            torch.manual_seed(0)
            hf.AutoModelForCausalLM.from_config(hf.AutoConfig.for_model(kind, **LM)).save_pretrained(path)
            component = SmallLlama(SmallLlamaOptions(vocab_size=LM["vocab_size"] - 1))
            component.tokenizer(["what color is the square?"]).save_pretrained(path)
            self.made[kind] = {"use": "pretrained", "checkpoint": str(path)}
        return self.made[kind]

    def layoutlmv3(self, name: str) -> Table:
        path = self.folder / "layoutlmv3"
        hf.LayoutLMv3Model(LAYOUTLMV3.config(image_size=64, depth=3, text=True)).save_pretrained(path)
        return {"use": f"layoutlmv3-{name}", "image_size": 64, "weights": str(path)}


FUSIONS: dict[str, Table] = {
    "mlp": {},
    "channel": {"grid": [4, 4]},
    "sva": {"grid": [4, 4], "hidden": 32, "heads": 2, "ffn": 64},
    "multi_qformer": {"queries": 8, "hidden": 32, "heads": 2, "ffn": 64, "layers": 2},
}


def toy_tables(path: Path, toys: Toys, tiny: Table) -> Table:
    """The tables of a published recipe at toy size, one step a stage.

    Args:
        tiny: the tables of the tiny recipe, whose language model and data these take.
    """
    tables = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    tables["encoders"] = [toys.encoder(table) for table in tables["encoders"]]
    tables["fusion"].update(FUSIONS[tables["fusion"]["use"]])
    adapters = {key: {**tables["lm"][key], "rank": 2} for key in ("lora", "partial_lora") if key in tables["lm"]}
    kind = tables["lm"].get("structure", {}).get("model_type", "llama")
    small = {**tiny["lm"], "max_positions": 1024} if kind == "llama" else toys.language_model(kind)
    tables["lm"] = {**small, **adapters}
    tables["data"] = tiny["data"]
    for stage in tables["stages"]:
        stage.update(steps=1, batch_size=2, accumulate=1, warmup=0)
    return {**tables, "evaluation": {"after": "never"}, "training": {"log_every": 1}}
