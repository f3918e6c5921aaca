"""The contract of visual encoders, and helpers to write one. The encoders themselves are plugins."""

from polyvex.encoders.base import EncoderFacts, EncoderOptions, License, VisionEncoder, WeightsPlace
from polyvex.encoders.images import normalize, resize_square
from polyvex.encoders.weights import WeightsReport, find_in_wheel, load_strictly, sha256_of

__all__ = [
    "EncoderFacts",
    "EncoderOptions",
    "License",
    "VisionEncoder",
    "WeightsPlace",
    "WeightsReport",
    "find_in_wheel",
    "load_strictly",
    "normalize",
    "resize_square",
    "sha256_of",
]
