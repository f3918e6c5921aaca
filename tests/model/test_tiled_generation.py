"""generate() where images have tiles, and each image its own number of tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from polyvex.assemble import Built

SIZES = ((100, 30), (32, 32), (31, 97))
"""Width and height: two tiles side by side, four, and two one above the other; borders are left out."""


@pytest.fixture(scope="module")
def built(make_built: Callable[..., Built]) -> Built:
    """The tiny model, whose first encoder sees AnyRes tiles, with room for them."""
    return make_built("encoders.0.tiling={}", "lm.max_positions=1024")


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


def generate(built: Built, inputs: Any, **options: Any) -> Any:
    output = built.model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=-1, **options)
    return output[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}]
)
def test_each_row_is_answered_by_its_own_images(options: dict[str, Any], built: Built) -> None:
    processor, images = built.processor, pictures()
    texts = [processor.prompt("what?", images=2), processor.prompt("is it?", images=0), processor.prompt("where?")]
    own = [images[:2], None, images[2:]]
    with torch.inference_mode():
        together = generate(built, processor(images=images, text=texts), **options)
        alone = [
            generate(built, processor(images=one, text=text), **options) for one, text in zip(own, texts, strict=True)
        ]
    assert torch.equal(together, torch.cat(alone))


def test_column_vectors_reach_each_tokens_own_place(make_built: Callable[..., Built]) -> None:
    changes = ("encoders.0.tiling={}", "lm.max_positions=1024", "positions.use=share_row_col", "fusion.shared=false")
    built = make_built(*changes)
    batch = built.processor.question("what?", pictures()[:1])
    model, sizes = built.model, batch["image_sizes"]
    plain = model.positions.scheme.columns.detach().clone()
    with torch.no_grad():
        model.positions.scheme.columns.zero_()
        without = model.see(batch["pixel_values"], None, sizes).values
        model.positions.scheme.columns.copy_(plain)
        added = model.see(batch["pixel_values"], None, sizes).values - without
    layout, first = model.layouts.of(tuple(sizes[0].tolist())), model.positions.scheme.first
    assert len(set(first)) == len(first) == 3  # whole image and tiles of the first encoder, the second one
    for place in range(layout.tokens):
        column = int(layout.coords[place, 1])
        key = int(layout.source[place]), int(layout.view[place])
        expected = plain[first[key] + column] if column >= 0 else torch.zeros_like(plain[0])
        assert torch.allclose(added[place], expected, atol=1e-5)
