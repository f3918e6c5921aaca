"""Encoders that exist on paper only: their grids are MouSi's, their weights are nowhere."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import EncoderFacts, EncoderOptions, License, VisionEncoder, WeightsPlace, WeightsReport
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import Recipe, parse_recipe
from polyvex.tokens import Grid, TokenShape, VisualTokens

SIDES = {"clip": 24, "dinov2": 16, "layoutlmv3": 14, "mae": 16, "sam": 64, "convnext": 32}
"""Rows (and columns) of each encoder's grid: papers.md, 1.7."""


class PaperOptions(EncoderOptions):
    free: bool = Field(default=True, description="Whether its licence allows commerce.")
    here: bool = Field(default=True, description="Whether its weights are needed.")


class PaperEncoder(VisionEncoder):
    Options: ClassVar[type[EncoderOptions]] = PaperOptions
    summary = "a grid on paper"
    side: ClassVar[int]

    @classmethod
    def describe(cls, options: Any) -> EncoderFacts:
        grid = Grid(rows=cls.side, cols=cls.side)
        return EncoderFacts(
            shape=TokenShape(tokens=grid.tokens, dim=10, grid=grid),
            image_size=(cls.side * 14, cls.side * 14),
            parameters=1000,
            license=License(name="MIT" if options.free else "CC-BY-NC-4.0", commercial=options.free),
            source="nobody",
        )

    @classmethod
    def weights(cls, options: Any) -> WeightsPlace:
        return WeightsPlace(path=None, install="pip install paper-weights", needed=not options.here)

    def load_pretrained(self) -> WeightsReport:
        raise AssertionError("a plan loads nothing")

    def transform(self, image: Image) -> Tensor:
        raise AssertionError("a plan transforms nothing")

    def forward(self, pixels: Tensor) -> VisualTokens:
        raise AssertionError("a plan encodes nothing")


class Papers:
    @hookimpl
    def register_encoders(self) -> dict[str, type]:
        return {name: type(name.title(), (PaperEncoder,), {"side": side}) for name, side in SIDES.items()}


@pytest.fixture(scope="session")
def papers() -> Registries:
    """The installed components and the encoders on paper."""
    return load_registries(extra={"papers": Papers()})


@pytest.fixture(scope="session")
def paper_recipe(tiny_tables: Callable[[], dict[str, Any]], papers: Registries) -> Callable[..., Recipe]:
    """A function: encoders by name (or as tables) and ``"a.b=c"`` changes to a dense recipe with them."""

    def make(encoders: list[Any], *overrides: str) -> Recipe:
        tables = [{"use": one} if isinstance(one, str) else one for one in encoders]
        data = {**tiny_tables(), "encoders": tables}
        data.pop("moe")
        data["stages"] = [{"name": "tune", "trains": ["connector", "lm"], "steps": 3, "batch_size": 4}]
        return parse_recipe(data, overrides=overrides, registries=papers)

    return make
