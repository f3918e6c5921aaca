"""Layouts of images, by encoders that pad or fill their picture."""

from typing import Any, ClassVar

from pydantic import Field

from polyvex.encoders.base import Box, EncoderFacts, EncoderOptions, License, VisionEncoder
from polyvex.encoders.views import EncoderViews, alike
from polyvex.tokens import Grid, TokenShape


class PadsOptions(EncoderOptions):
    """Options of an encoder that may pad."""

    pad: bool = Field(default=True, description="Pad at the bottom; else stretch.")


class Pads(VisionEncoder[PadsOptions]):
    """An encoder on paper, with 8 × 8 pixels."""

    Options: ClassVar[type[EncoderOptions]] = PadsOptions
    described: ClassVar[list[Any]] = []

    @classmethod
    def describe(cls, options: PadsOptions) -> EncoderFacts:
        cls.described.append(options)
        return EncoderFacts(
            shape=TokenShape(tokens=16, dim=2, grid=Grid(rows=4, cols=4)),
            image_size=(8, 8),
            parameters=0,
            license=License(name="MIT", commercial=True),
            source="nobody",
        )

    @classmethod
    def content(cls, options: PadsOptions, size: tuple[int, int]) -> Box:
        if not options.pad:
            return super().content(options, size)
        return Box(top=0, left=0, height=max(1, 8 * size[0] // max(size)), width=max(1, 8 * size[1] // max(size)))


def views(**options: Any) -> EncoderViews:
    return EncoderViews(kind=Pads, options=PadsOptions(**options))


def test_encoders_are_alike_only_if_they_pad_alike() -> None:
    assert alike([views(), views()])
    assert alike([views(pad=False), views(pad=False)])
    assert not alike([views(), views(pad=False)])
    assert not alike([views(pad=False), views()])


def test_an_encoder_that_fills_its_picture_is_not_described_for_each_image() -> None:
    filling = views(pad=False)
    filling.of((3, 5))
    before = len(Pads.described)
    assert [filling.of((height, 7))[0].tiled for height in range(1, 9)] == [False] * 8
    assert len(Pads.described) == before
