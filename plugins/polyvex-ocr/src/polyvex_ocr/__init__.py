"""polyvex plugin: PP-OCRv4 as the encoders ``ocr-regions`` and ``ocr-words``, and :func:`read_words`."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_ocr.read import Word, read_words
from polyvex_ocr.regions import OcrRegions, OcrRegionsOptions
from polyvex_ocr.words import OcrWords, OcrWordsOptions, WordsLeftOut

__all__ = [
    "OcrRegions",
    "OcrRegionsOptions",
    "OcrWords",
    "OcrWordsOptions",
    "Word",
    "WordsLeftOut",
    "read_words",
    "register_encoders",
]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``ocr-regions`` and ``ocr-words``."""
    return {"ocr-regions": OcrRegions, "ocr-words": OcrWords}
