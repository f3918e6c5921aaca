"""Visual tokens where they lie on the image: grids, views, and what the encoder saw."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from polyvex_basics import Patchify

from polyvex.assemble import build
from polyvex.data import Sample
from polyvex.encoders.images import open_image, size_of
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.sequence import lay_out
from polyvex.training.token_views import TokenView, cropped_box, token_views
from polyvex.training.token_views import picture as token_picture


def views_of(recipe: Recipe, registries: Registries, path: Path) -> list[TokenView]:
    """The views of an image whose tokens go to experts 0, 1, 2, … in the order of the sequence, text to 99."""
    model: Any = build(recipe, registries=registries).model
    size = size_of(open_image(path))
    layouts = model.layouts.of_all([size]) if not model.layouts.fixed else model.layouts.of()
    count = model.layouts.tokens(size)
    placeholders = torch.tensor([[False, *[True] * count, False]])
    layout = lay_out(placeholders, torch.ones_like(placeholders), layouts)
    firsts = {3: torch.tensor([99, *range(count), 99])}
    sample = Sample(id="one", images=(str(path),), question="?", answer="!", kind="")
    names = model.encoder_names if model.fusion.separate else ["+".join(model.encoder_names)]
    return token_views(model, sample, layout, firsts, names=names)


def picture(folder: Path, width: int = 32, height: int = 32) -> Path:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = 255
    Image.fromarray(pixels).save(folder / "half.png")
    return folder / "half.png"


def test_each_encoders_grid_in_the_order_of_its_tokens(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    first, second = views_of(tiny_recipe(), registries, picture(tmp_path))
    assert (first.encoder, first.view) == ("patchify", 0)
    assert first.experts[3].tolist() == [[0, 1], [2, 3]]
    assert second.encoder == "color-grid"
    assert second.experts[3].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_picture_keeps_its_colors_whatever_the_encoders_inputs_are(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blue before red, and values far from 0 to 1, as some networks have been trained with.
    plain = Patchify.transform
    monkeypatch.setattr(Patchify, "transform", lambda self, image: plain(self, image).flip(0) * 300 - 7)
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 32), (250, 20, 10)).save(path)
    view = views_of(tiny_recipe(), registries, path)[0]
    assert (view.pixels == [250, 20, 10]).all()


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256), (64, 48)])
def test_a_picture_shows_what_is_left_of_a_cropped_image(
    width: int, height: int, tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    """An encoder that keeps the middle of the image: 7/8 of its shorter side."""
    model: Any = build(tiny_recipe(), registries=registries).model
    encoder, side = model.encoders["patchify"], 7 / 8 * min(width, height)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)

    class Cropping(type(encoder)):  # type: ignore[misc]
        @classmethod
        def describe(cls, options: Any) -> Any:
            return dataclasses.replace(super().describe(options), crops=True)

        def transform(self, image: Image.Image) -> Any:
            return super().transform(image.resize((96, 96), Image.Resampling.BILINEAR, box=box))

    encoder.__class__ = Cropping
    assert cropped_box(encoder, (height, width)) == pytest.approx(box, abs=max(width, height) / 255)
    image = Image.new("RGB", (width, height), "black")
    image.paste("red", tuple(round(edge) for edge in box))  # type: ignore[arg-type]
    views = dataclasses.replace(model.views_of["patchify"], kind=Cropping)
    shown = token_picture(image, encoder, views, 0)
    assert shown.shape == (*views.picture, 3)
    assert (shown[1:-1, 1:-1] == [255, 0, 0]).all()


def test_pixels_are_what_the_encoder_saw(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    view = views_of(tiny_recipe(), registries, picture(tmp_path))[0]
    assert view.pixels is not None
    assert (view.pixels.shape, view.pixels.dtype) == ((32, 32, 3), np.uint8)
    assert (view.pixels[:16] == 255).all()
    assert (view.pixels[16:] == 0).all()


def test_tiles_are_put_together_and_ends_of_rows_have_no_place(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    table = {"use": "patchify", "image_size": 32, "patch_size": 16, "dim": 8, "tiling": {"grids": [[2, 1], [1, 2]]}}
    recipe = tiny_recipe(encoders=[table], positions={"use": "sequential"})
    whole, tiles = views_of(recipe, registries, picture(tmp_path, width=64, height=32))
    assert (whole.view, tiles.view) == (0, 1)
    assert whole.experts[3].shape == (2, 2)
    assert tiles.experts[3].shape == (2, 4)
    assert tiles.pixels is not None
    assert tiles.pixels.shape == (32, 64, 3)
    assert (tiles.pixels[:16] == 255).all()


def test_a_fusion_without_a_grid_gives_none(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    fusion = {"use": "qformer", "queries": 3, "hidden": 16, "heads": 2, "ffn": 16, "layers": 1}
    recipe = tiny_recipe(fusion=fusion, positions={"use": "share_all"})
    assert views_of(recipe, registries, picture(tmp_path)) == []


def test_merged_tokens_are_drawn_on_the_first_encoders_picture(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    recipe = tiny_recipe(fusion={"use": "channel", "grid": [2, 2]}, positions={"use": "sequential"})
    (view,) = views_of(recipe, registries, picture(tmp_path))
    assert view.encoder == "patchify+color-grid"
    assert view.pixels is not None
