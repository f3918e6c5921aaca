"""The architecture of a LayoutLMv3, known without any file, and held against a checkpoint's own description."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyvex.errors import WeightsError

if TYPE_CHECKING:
    from transformers import LayoutLMv3Config

PATCH = 16
"""Side of a patch in pixels."""

TRAINED_SIZE = 224
"""Side in pixels of the images that the checkpoints were trained on."""

POSITION_BINS, BOX_BINS, COORDINATES = 32, 64, 1024
"""Rows of the tables of relative positions, of the text and of boxes, and of places on the page, as transformers has
them by default."""

SHAPING = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps"),
    *("vocab_size", "type_vocab_size", "max_position_embeddings", "max_2d_position_embeddings", "pad_token_id"),
    *("coordinate_size", "shape_size", "has_relative_attention_bias", "has_spatial_attention_bias"),
    *("rel_pos_bins", "max_rel_pos", "rel_2d_pos_bins", "max_rel_2d_pos", "num_channels", "patch_size"),
)
"""Settings of transformers' configuration that change what a network computes in eval mode, and are not options."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What tells one LayoutLMv3 from another; everything else is as in transformers' ``LayoutLMv3Config``.

    ``hidden`` is the width inside of the feed-forward networks. The embedding of a box joins four coordinates, each
    ``coordinate_dim`` wide, and a height and a width, each ``shape_dim`` wide. ``positions`` is how many positions
    the text has; the first two are taken.
    """

    dim: int
    layers: int
    heads: int
    hidden: int
    coordinate_dim: int
    shape_dim: int
    vocabulary: int = 50_265
    positions: int = 514
    token_types: int = 1

    @property
    def most_tokens(self) -> int:
        """How many tokens of text the network can take. Positions begin behind that of padding, which is 1."""
        return self.positions - 2

    def config(self, *, image_size: int, depth: int, text: bool) -> "LayoutLMv3Config":
        """transformers' configuration of the network's first ``depth`` layers, with or without its text embeddings."""
        from transformers import LayoutLMv3Config

        return LayoutLMv3Config(
            **self._told(), num_hidden_layers=depth, input_size=image_size, patch_size=PATCH, text_embed=text
        )

    def _told(self) -> dict[str, Any]:
        return {
            "hidden_size": self.dim,
            "num_attention_heads": self.heads,
            "intermediate_size": self.hidden,
            "coordinate_size": self.coordinate_dim,
            "shape_size": self.shape_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.token_types,
        }

    def check(self, path: Path) -> None:
        """Hold a checkpoint's ``config.json`` against this structure.

        Raises:
            WeightsError: if it is unreadable, or anything that changes the network differs. All of it is named.
        """
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            kind = given["model_type"]
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{path}: not a configuration of transformers ({type(error).__name__}: {error}). Fetch it again"
            ) from None
        wanted = self.config(image_size=TRAINED_SIZE, depth=self.layers, text=True).to_dict()
        problems = [f"model_type is '{kind}', expected 'layoutlmv3'"] if kind != "layoutlmv3" else []
        problems += [
            f"{key} is {given[key]!r}, expected {wanted[key]!r}"
            for key in SHAPING
            if key in given and given[key] != wanted[key]
        ]
        if problems:
            raise WeightsError(
                f"{path}: another architecture than this encoder's. Take the encoder that it is for\n"
                + "\n".join(f"  - {problem}" for problem in problems)
            )


BASE = Structure(dim=768, layers=12, heads=12, hidden=3072, coordinate_dim=128, shape_dim=128)
"""``microsoft/layoutlmv3-base``."""

LARGE = Structure(dim=1024, layers=24, heads=16, hidden=4096, coordinate_dim=171, shape_dim=170)
"""``microsoft/layoutlmv3-large``."""
