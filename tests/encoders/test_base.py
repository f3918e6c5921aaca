"""The contract of encoders, on those that need no weights."""

import pytest
from polyvex_basics import ColorGrid, ColorGridOptions, Patchify, PatchifyOptions

from polyvex.encoders import EncoderOptions, License, VisionEncoder
from polyvex.testing import check_encoder


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Patchify, PatchifyOptions(image_size=32, patch_size=16, dim=8)),
        (ColorGrid, ColorGridOptions(image_size=32, rows=2, cols=4)),
    ],
    ids=["patchify", "color-grid"],
)
def test_the_tiny_recipes_encoders_keep_the_contract(kind: type[VisionEncoder], options: EncoderOptions) -> None:
    check_encoder(kind, options)


def test_a_licence_shouts_where_commerce_is_forbidden() -> None:
    assert str(License(name="Apache-2.0", commercial=True)) == "Apache-2.0"
    assert str(License(name="CC BY-NC-SA 4.0", commercial=False)) == "CC BY-NC-SA 4.0 (NOT for commercial use)"


def test_an_encoder_must_be_whole() -> None:
    class Half(VisionEncoder):
        summary = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half(EncoderOptions())  # type: ignore[abstract]
