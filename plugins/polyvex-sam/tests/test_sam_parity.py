"""Against segment-anything itself: the same tokens as its own image encoder, at seeded random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from polyvex_sam import SamEncoder, SamOptions
from polyvex_sam.checkpoint import resample_grid
from segment_anything.modeling import Sam
from torch import Tensor

from polyvex.tokens import Grid


def pixels(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4))


def encode(kind: type[SamEncoder], side: int, path: Path, **options: Any) -> Tensor:
    encoder = kind(SamOptions(image_size=side, weights=str(path), **options)).eval()
    report = encoder.load_pretrained()
    assert report.missing == []
    with torch.inference_mode():
        return encoder(pixels(side)).values


def seen_by(sam: Sam, module: str, side: int) -> Tensor:
    """What goes into a part of segment-anything's own image encoder in its own forward."""
    seen: list[Tensor] = []
    handle = sam.image_encoder.get_submodule(module).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        sam.image_encoder(pixels(side))
    finally:
        handle.remove()
    return seen[0]


def test_tokens_behind_the_neck(tiny: type[SamEncoder], sam: Sam, checkpoint: Path) -> None:
    wanted = sam.image_encoder(pixels(128)).flatten(2).mT
    got = encode(tiny, 128, checkpoint)
    assert wanted.std() > 0.1
    assert torch.allclose(got, wanted, atol=1e-5)


def test_tokens_of_the_last_block_are_what_the_neck_gets(tiny: type[SamEncoder], sam: Sam, checkpoint: Path) -> None:
    wanted = seen_by(sam, "neck", 128).flatten(2).mT
    got = encode(tiny, 128, checkpoint, features="blocks")
    assert wanted.std() > 0.1
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2, -2, -4])
def test_tokens_of_a_block_are_what_the_next_one_gets(
    layer: int, tiny: type[SamEncoder], sam: Sam, checkpoint: Path
) -> None:
    wanted = seen_by(sam, f"blocks.{layer % 4 + 1}", 128).flatten(1, 2)
    assert torch.allclose(encode(tiny, 128, checkpoint, features="blocks", layers=layer), wanted, atol=1e-5)


def test_layers_are_joined_in_their_order(tiny: type[SamEncoder], checkpoint: Path) -> None:
    def tokens(layers: int | list[int]) -> Tensor:
        return encode(tiny, 128, checkpoint, features="blocks", layers=layers)

    assert torch.equal(tokens([2, 0]), torch.cat([tokens(2), tokens(0)], dim=-1))


@pytest.mark.parametrize("side", [64, 80, 192])
def test_another_size_gives_what_segment_anythings_own_blocks_give_there(
    side: int, tiny: type[SamEncoder], sam: Sam, checkpoint: Path
) -> None:
    """They take any grid, and resample their tables in each forward; only the absolute positions must fit."""
    grid = Grid(rows=side // 16, cols=side // 16)
    network = sam.image_encoder
    maps = network.patch_embed(pixels(side)) + resample_grid(network.pos_embed, grid)
    for block in network.blocks:
        maps = block(maps)
    wanted = network.neck(maps.permute(0, 3, 1, 2)).flatten(2).mT
    assert torch.allclose(encode(tiny, side, checkpoint), wanted, atol=1e-5)


def test_absolute_positions_are_resampled_bicubically_without_antialias(sam: Sam) -> None:
    """By hand, from the formula of the cubic with a = -0.75 that torch uses (Keys 1981), weights per axis."""
    positions = sam.image_encoder.pos_embed

    def weights(small: int, large: int) -> Tensor:
        table = torch.zeros(small, large)
        for place in range(small):
            centre = (place + 0.5) * large / small - 0.5
            first = int(torch.tensor(centre).floor())
            for near in range(first - 1, first + 3):
                away = abs(centre - near)
                a = -0.75
                inner = (a + 2) * away**3 - (a + 3) * away**2 + 1
                outer = a * away**3 - 5 * a * away**2 + 8 * a * away - 4 * a
                table[place, min(max(near, 0), large - 1)] += inner if away <= 1 else outer
        return table

    axis = weights(5, 8)
    wanted = torch.einsum("pr,qc,ircd->ipqd", axis, axis, positions)
    assert torch.allclose(resample_grid(positions, Grid(rows=5, cols=5)), wanted, atol=1e-5)


def test_gradients_reach_every_weight(tiny: type[SamEncoder]) -> None:
    encoder = tiny(SamOptions(image_size=64))
    encoder(pixels(64)).values.square().mean().backward()
    assert [key for key, value in encoder.named_parameters() if value.grad is None] == []
