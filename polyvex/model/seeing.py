"""From pixels or cached tokens to the visual tokens that the language model reads."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from polyvex.encoders.base import EncoderInputs
from polyvex.encoders.inputs import map_inputs, pixels_of, run_encoder, to_like
from polyvex.encoders.tiling import Size
from polyvex.encoders.views import EncoderViews
from polyvex.errors import ContractError
from polyvex.fusion.base import Choice, Fusion
from polyvex.layouts import ImageLayouts
from polyvex.model.config import PolyvexConfig
from polyvex.model.generation import sizes_of
from polyvex.model.merge import MergeViews
from polyvex.positions import PositionAssigner
from polyvex.tokens import TokenShape, VisualLayout, VisualSequence, VisualTokens

PerEncoder = Mapping[str, Any]
"""By the encoder's name: tokens, or pixels with whatever else its transform gives."""


class SeesImages:
    """The part of a model that encodes, reduces, fuses and lays out images."""

    config: PolyvexConfig
    lm: Any
    encoders: nn.ModuleDict
    encoder_names: list[str]
    encoder_tables: dict[str, Any]
    reducers: nn.ModuleDict
    fusion: Fusion
    views: MergeViews
    views_of: dict[str, EncoderViews]
    layouts: ImageLayouts
    positions: PositionAssigner
    training: bool
    _input_shapes: list[TokenShape]

    @property
    def input_shapes(self) -> list[TokenShape]:
        """What each encoder emits for one tile, in order."""
        return self._input_shapes

    @property
    def layout(self) -> VisualLayout:
        """Where the visual tokens of an image come from, if all images are laid out alike."""
        return self.layouts.of()

    def see(
        self,
        pixel_values: PerEncoder | None,
        encoder_tokens: PerEncoder | None,
        image_sizes: Tensor | None = None,
        question: Float[Tensor, "images dim"] | None = None,
    ) -> VisualSequence | None:
        """Encode, fuse, put views together, and add what the position scheme keeps in embeddings.

        None without images. ``question`` is the mean embedding of what is asked about each image, for a fusion that
        chooses encoders by it: those that weigh nothing for an image do not run on its pixels.

        Raises:
            ContractError: if both pixels and tokens are given, or not those of the model's encoders.
        """
        if encoder_tokens is None and pixel_values is None:
            return None
        tokens, pixels = encoder_tokens or {}, pixel_values or {}
        if both := sorted(set(tokens) & set(pixels)):
            raise ContractError(
                f"got both pixel_values and encoder_tokens of {', '.join(both)}; pass one of them, they say the same"
            )
        self._check_names(tokens, pixels)
        weights = self._choose(question, image_sizes, {**tokens, **pixels})
        parts = [
            self._given(name, tokens[name])
            if name in tokens
            else self._encode_some(name, pixels[name], None if weights is None else weights[:, index] > 0)
            for index, name in enumerate(self.encoder_names)
        ]
        own = next(self.fusion.parameters(), self.lm.get_input_embeddings().weight)
        moved = [replace(part, values=part.values.to(own.device, own.dtype)) for part in parts]
        reduced = [self._reduced(name, part) for name, part in zip(self.encoder_names, moved, strict=True)]
        runs = self.fusion.runs(reduced) if weights is None else self._routed(reduced, weights)
        ids = self.config.separator_ids
        between = self.lm.get_input_embeddings()(torch.tensor(ids, device=own.device)) if ids else None
        if self.layouts.fixed and self.layouts.untiled:
            embedded = self.positions.embed(self.views.whole(runs, between), self.layout)
            return VisualSequence(values=embedded.flatten(0, 1), layouts=self.layout)
        sizes = self._sizes(image_sizes, len(parts[0].values))
        layouts = [self.layouts.of(size) for size in sizes]
        embedded = self.positions.embed(self.views(runs, sizes, between), VisualLayout.joined(layouts))
        return VisualSequence(values=embedded, layouts=self.layout if self.layouts.fixed else layouts)

    def _choose(
        self, question: Float[Tensor, "images dim"] | None, image_sizes: Tensor | None, given: PerEncoder
    ) -> Float[Tensor, "tiles encoders"] | None:
        """How much each encoder counts for each tile; None where the fusion takes all of them."""
        if question is None or not self.fusion.routes:
            return None
        own = next(self.fusion.parameters())
        weights = self.fusion.choose(question.to(own.device, own.dtype)).weights
        sizes = sizes_of(image_sizes) or [(1, 1)] * len(weights)
        first = self.encoder_names[0]  # all encoders have the same tiles where a fusion merges them
        counts = torch.tensor([self.views_of[first].tiles(size) for size in sizes], device=weights.device)
        return weights.repeat_interleave(counts, dim=0)

    def _routed(self, parts: list[VisualTokens], weights: Float[Tensor, "tiles encoders"]) -> list[Tensor]:
        fusion: Any = self.fusion
        fused = fusion(parts, Choice(weights=weights)).values
        return list(fused.split([shape.tokens for shape in self.fusion.shapes], dim=1))

    def _encode_some(self, name: str, pixels: EncoderInputs, chosen: Bool[Tensor, " tiles"] | None) -> VisualTokens:
        """Run an encoder on the tiles that it was chosen for; zeros stand for the others."""
        if chosen is None or bool(chosen.all()):
            return self._encode(name, pixels)
        shape = self._input_shapes[self.encoder_names.index(name)]
        zeros = torch.zeros(len(chosen), shape.tokens, shape.dim, device=chosen.device)
        if not chosen.any():
            return VisualTokens.on_grid(zeros + self._idle(name), shape.grid)
        index = chosen.nonzero()[:, 0]
        some = self._encode(name, map_inputs(pixels, lambda values: values[index.to(values.device)]))
        values = zeros.to(some.values.device, some.values.dtype)
        return replace(some, values=values.index_copy(0, index.to(values.device), some.values))

    def _idle(self, name: str) -> Tensor | float:
        """Zero, through what an encoder learns: one that nobody chose gets gradients too (of zero).

        Otherwise processes that train together would wait for each other.
        """
        learned = [one for one in self.encoders[name].parameters() if one.requires_grad]
        return 0.0 * torch.stack([one.sum() for one in learned]).sum() if self.training and learned else 0.0

    def _reduced(self, name: str, part: VisualTokens) -> VisualTokens:
        """An encoder's tokens, or what its reducer leaves of them."""
        if name not in self.reducers:
            return part
        reducer: Any = self.reducers[name]
        return VisualTokens.on_grid(reducer(part.values), reducer.shape.grid)

    def _sizes(self, image_sizes: Tensor | None, tiles: int) -> list[Size]:
        """Height and width of each image; of ``tiles`` of the first encoder, if all images are laid out alike."""
        if (sizes := sizes_of(image_sizes)) is not None:
            return sizes
        self.layouts.of()  # tells that sizes are missing, if they are needed
        return [(1, 1)] * (tiles // self.layouts.runs[0].views.tiles((1, 1)))

    def encode(self, pixel_values: PerEncoder) -> list[VisualTokens]:
        """Run every encoder on its own pixels, in recipe order. Gradients are kept of those that learn, if any."""
        self._check_names({}, pixel_values)
        return [self._encode(name, pixel_values[name]) for name in self.encoder_names]

    def _encode(self, name: str, pixels: EncoderInputs) -> VisualTokens:
        if name not in self.encoders:
            raise ContractError(
                f"this checkpoint has no encoder '{name}' (it is one inside a run). Pass its encoder_tokens instead"
            )
        encoder: Any = self.encoders[name]
        like = next(encoder.parameters(), pixels_of(pixels))
        table = self.encoder_tables[name]
        with torch.set_grad_enabled(torch.is_grad_enabled() and table.tune != "frozen"):
            return run_encoder(encoder, to_like(pixels, like), table.precision)

    def _given(self, name: str, values: Float[Tensor, "tiles tokens dim"]) -> VisualTokens:
        shape = self._input_shapes[self.encoder_names.index(name)]
        if values.shape[1:] != (shape.tokens, shape.dim):
            raise ContractError(
                f"encoder_tokens of '{name}' are {tuple(values.shape[1:])} per image, expected "
                f"{(shape.tokens, shape.dim)} (tokens, width). Were they cached with other options?"
            )
        return VisualTokens.on_grid(values, shape.grid)

    def _check_names(self, tokens: PerEncoder, pixels: PerEncoder) -> None:
        given = sorted([*tokens, *pixels])
        if given != sorted(self.encoder_names):
            what = " and ".join(
                name for name, values in (("pixel_values", pixels), ("encoder_tokens", tokens)) if values
            )
            raise ContractError(f"{what} has {given}, expected the encoders {sorted(self.encoder_names)}")
