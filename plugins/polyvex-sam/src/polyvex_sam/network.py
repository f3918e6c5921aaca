"""Build segment-anything's image encoder as far as it is read, and read it."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from polyvex_sam.structure import PATCH, Structure

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT


def make_network(structure: Structure) -> "ImageEncoderViT":
    """segment-anything's own network with fresh weights, for one image size, without what comes behind."""
    from segment_anything.modeling import ImageEncoderViT

    variant = structure.variant
    network = ImageEncoderViT(
        img_size=structure.grid.rows * PATCH,
        patch_size=PATCH,
        embed_dim=variant.dim,
        depth=structure.blocks,
        num_heads=variant.heads,
        mlp_ratio=4,
        out_chans=variant.neck,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]  # the library's own build passes that
        use_rel_pos=True,
        window_size=variant.window,
        global_attn_indexes=variant.global_blocks,
    )
    if not structure.neck:
        network.neck = nn.Sequential()  # gives what it gets
    return network


def read_tokens(
    network: "ImageEncoderViT", pixels: Float[Tensor, "images 3 height width"], layers: Sequence[int]
) -> Float[Tensor, "images tokens dim"]:
    """Outputs of ``layers``, joined along the width in their order, through the neck; row by row."""
    maps = network.patch_embed(pixels) + network.pos_embed
    kept: dict[int, Tensor] = {}
    for number, block in enumerate(network.blocks):
        maps = block(maps)
        if number in layers:
            kept[number] = maps
    joined = torch.cat([kept[layer] for layer in layers], dim=-1)
    behind = network.neck(rearrange(joined, "images rows cols dim -> images dim rows cols"))
    return rearrange(behind, "images dim rows cols -> images (rows cols) dim")
