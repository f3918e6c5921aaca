"""A SAM that is small enough for tests, whole as segment-anything builds it, and our encoder for it."""

from functools import partial
from pathlib import Path

import pytest
import torch
from polyvex_sam import SamEncoder
from polyvex_sam.structure import Variant
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

TINY = Variant(name="sam-tiny", file="sam_tiny.pth", dim=32, depth=4, heads=2, global_blocks=(1, 3), window=3, neck=24)


class Tiny(SamEncoder):
    """Four blocks, windows of 3 × 3: neither a grid of 4 nor one of 8 is whole windows."""

    variant = TINY
    summary = "for tests"


@pytest.fixture(scope="session")
def tiny() -> type[SamEncoder]:
    return Tiny


@pytest.fixture(scope="session")
def sam() -> Sam:
    """segment-anything's own model for 128 × 128 pixels, all of it at seeded random values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Sam(
            image_encoder=ImageEncoderViT(
                img_size=128,
                patch_size=16,
                embed_dim=TINY.dim,
                depth=TINY.depth,
                num_heads=TINY.heads,
                mlp_ratio=4,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                qkv_bias=True,
                use_rel_pos=True,
                window_size=TINY.window,
                global_attn_indexes=TINY.global_blocks,
                out_chans=TINY.neck,
            ),
            prompt_encoder=PromptEncoder(TINY.neck, (8, 8), (128, 128), 4),
            mask_decoder=MaskDecoder(
                transformer_dim=TINY.neck, transformer=TwoWayTransformer(1, TINY.neck, 2, 16), num_multimask_outputs=1
            ),
        )
        with torch.no_grad():  # fresh positions are zeros, and fresh norms do nothing: both would hide a mistake
            for value in model.parameters():
                value.add_(torch.randn_like(value) * 0.2)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def checkpoint(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole model in a file, as segment-anything's own checkpoints are."""
    path = tmp_path_factory.mktemp("sam") / "sam_tiny.pth"
    torch.save(sam.state_dict(), path)
    return path
