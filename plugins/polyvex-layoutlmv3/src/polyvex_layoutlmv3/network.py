"""transformers' LayoutLMv3, cut behind the last layer that is read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polyvex.tokens import Grid
from polyvex_layoutlmv3.structure import BOX_BINS, COORDINATES, PATCH, POSITION_BINS, Structure

if TYPE_CHECKING:
    from transformers import LayoutLMv3Model


def make_network(structure: Structure, *, image_size: int, depth: int, text: bool) -> "LayoutLMv3Model":
    """Build the first ``depth`` layers with fresh weights; without ``text``, the text embeddings are not built.

    Boxes of patches and ids of positions, which transformers computes, are put into the state dict: a checkpoint
    holds all state.
    """
    from transformers import LayoutLMv3Model

    network = LayoutLMv3Model(structure.config(image_size=image_size, depth=depth, text=text))
    for key, buffer in list(network.named_buffers()):
        parent, _, name = key.rpartition(".")
        network.get_submodule(parent).register_buffer(name, buffer, persistent=True)
    return network


def computed_buffers(network: "LayoutLMv3Model") -> dict[str, Tensor]:
    """The buffers that no file has to hold, by their keys, also for a network on ``meta``."""
    with torch.device("cpu"):
        values = {"visual_bbox": network.create_visual_bbox(image_size=(network.size, network.size))}
        if network.config.text_embed:
            values["embeddings.position_ids"] = torch.arange(network.config.max_position_embeddings)[None]
    return values


def read_layers(
    network: "LayoutLMv3Model",
    layers: Sequence[int],
    pixels: Float[Tensor, "images 3 height width"],
    words: Int[Tensor, "images words"] | None = None,
    boxes: Int[Tensor, "images words 4"] | None = None,
    mask: Int[Tensor, "images words"] | None = None,
) -> Float[Tensor, "images tokens dim"]:
    """The patches' tokens after each of ``layers``, joined along the width; text and class token are left out."""
    output = network(input_ids=words, bbox=boxes, attention_mask=mask, pixel_values=pixels, output_hidden_states=True)
    before = 1 if words is None else words.shape[1] + 1  # the text, and the class token of the picture
    return torch.cat([output.hidden_states[layer + 1][:, before:] for layer in layers], dim=-1)


def count_parameters(structure: Structure, *, grid: Grid, depth: int, text: bool) -> int:
    """Weights of the network, told from its structure: listings need not build it, nor import transformers."""
    dim, hidden = structure.dim, structure.hidden
    attention = 4 * (dim**2 + dim)
    feed_forward = 2 * dim * hidden + hidden + dim
    layer = attention + feed_forward + 4 * dim  # two norms
    patches = 3 * PATCH**2 * dim + dim
    places = (1 + 1 + grid.tokens) * dim  # the class token, and a position for it and for each patch
    relative = (POSITION_BINS + 2 * BOX_BINS) * structure.heads
    words = 0
    if text:
        boxes = COORDINATES * 2 * (structure.coordinate_dim + structure.shape_dim)
        words = (structure.vocabulary + structure.token_types + structure.positions + 2) * dim + boxes
    return depth * layer + patches + places + 4 * dim + relative + words  # 4: two norms around the layers


def count_flops(structure: Structure, *, grid: Grid, depth: int, words: int) -> int:
    """Matrix products of one image's forward; norms, activations and look-ups are left out, as is usual."""
    length = words + 1 + grid.tokens
    patches = 2 * grid.tokens * 3 * PATCH**2 * structure.dim
    projections = 2 * length * (4 * structure.dim**2 + 2 * structure.dim * structure.hidden)
    attention = 2 * 2 * length**2 * structure.dim
    return patches + depth * (projections + attention)
