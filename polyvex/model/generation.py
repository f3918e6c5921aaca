"""Generation with images: positions of the prompt by the scheme, images only while it is read, beams with theirs."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationMixin

from polyvex.encoders.inputs import map_inputs
from polyvex.encoders.tiling import Size
from polyvex.encoders.views import EncoderViews
from polyvex.fusion.base import Fusion
from polyvex.layouts import ImageLayouts
from polyvex.model.config import PolyvexConfig
from polyvex.positions import PositionAssigner
from polyvex.sequence import images_of_rows, lay_out
from polyvex.tokens import Layouts

ASKED = "asked_mask"
"""What the prompt asks, for a fusion that chooses encoders by the question."""

IMAGE_INPUTS = ("encoder_tokens", "pixel_values", "image_sizes", ASKED)
"""Arguments of the forward that only the prompt needs; decoding goes on without them."""

NEXT = "next_position_id"
"""Where positions go on behind a prompt [batch], kept among generate()'s arguments until the first answer."""


class GeneratesWithImages(GenerationMixin):
    """What ``generate`` asks of a model, for one that sees."""

    config: PolyvexConfig
    layouts: ImageLayouts
    views_of: dict[str, EncoderViews]
    positions: PositionAssigner
    fusion: Fusion

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        """Positions of the whole prompt by the scheme; generate() then goes on from the last one."""
        mask = model_kwargs.get("attention_mask")
        valid = mask.bool() if mask is not None else torch.ones_like(inputs_tensor, dtype=torch.bool)
        placeholders = inputs_tensor == self.config.image_token_id
        sizes = model_kwargs.get("image_sizes")
        if sizes is None and placeholders.any():
            self.layouts.of()  # tells that sizes are missing, if they are needed
        if self.fusion.routes:
            model_kwargs[ASKED] = valid
        positions = self.positions.assign(lay_out(placeholders, valid, self.layouts_of(sizes)))
        if (positions.ids[:, -1] + 1 != positions.next_id).any():
            # generate() goes on behind the last position, which is not the one that is free if the prompt ends with an
            # image whose tokens share positions.
            model_kwargs[NEXT] = positions.next_id
        return positions.ids

    def _update_model_kwargs_for_generation(  # type: ignore[override]
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        """As transformers does it, and the first answer goes on where the position scheme says."""
        following = model_kwargs.pop(NEXT, None)
        parent: Any = super()
        updated = parent._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder, num_new_tokens)
        if following is not None:
            ids = updated["position_ids"]
            new = following[:, None] + torch.arange(num_new_tokens, device=following.device)
            updated["position_ids"] = torch.cat([ids[:, :-num_new_tokens], new.to(ids.dtype)], dim=1)
        return updated

    def layouts_of(self, image_sizes: Int[Tensor, "images 2"] | None) -> Layouts:
        """The layout that all images share, or one for each of ``image_sizes``."""
        return self.layouts.of_all(sizes_of(image_sizes))

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """As transformers does it, and images are passed on only while the prompt is read."""
        parent: Any = super()
        kwargs.pop(NEXT, None)
        asked = kwargs.pop(ASKED, None)
        inputs = parent.prepare_inputs_for_generation(input_ids, **kwargs)
        if asked is not None:  # without a cache the prompt is read again, with what was answered behind it
            answered = asked.new_zeros(len(asked), input_ids.shape[1] - asked.shape[1])
            inputs[ASKED] = torch.cat([asked, answered], dim=1)
        if not kwargs.get("is_first_iteration") and kwargs.get("use_cache", True):
            for name in IMAGE_INPUTS:
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat each row for beams or several answers, and the images of a row with it."""
        sizes = kwargs.pop("image_sizes", None)  # transformers would repeat it by rows, as any other tensor
        if expand_size > 1 and input_ids is not None:
            placeholders = (input_ids == self.config.image_token_id).sum(dim=1).tolist()
            rows = images_of_rows(placeholders, self.layouts_of(sizes))
            for key in ("pixel_values", "encoder_tokens"):
                if kwargs.get(key) is not None:
                    kwargs[key] = {
                        name: map_inputs(
                            values, partial(_repeat, counts=self._tiles(name, rows, sizes), times=expand_size)
                        )
                        for name, values in kwargs[key].items()
                    }
            if sizes is not None:
                sizes = _repeat(sizes, counts=rows, times=expand_size)
        parent: Any = super()
        ids, inputs = parent._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return ids, {**inputs, **({} if sizes is None else {"image_sizes": sizes})}

    def _tiles(self, name: str, rows: list[int], image_sizes: Tensor | None) -> list[int]:
        """Tiles that an encoder has of the images of each row."""
        sizes = sizes_of(image_sizes) or [(1, 1)] * sum(rows)
        per_image = iter([self.views_of[name].tiles(size) for size in sizes])
        return [sum(next(per_image) for _ in range(images)) for images in rows]


def sizes_of(image_sizes: Int[Tensor, "images 2"] | None) -> list[Size] | None:
    """Height and width of each image, as whole numbers."""
    return None if image_sizes is None else [(int(height), int(width)) for height, width in image_sizes.tolist()]


def _repeat(values: Tensor, *, counts: list[int], times: int) -> Tensor:
    rows = values.split(counts)
    return torch.cat([row for row in rows for _ in range(times)])
