"""The contract of visual encoders, and helpers to write one. The encoders themselves are plugins."""

from polyvex.encoders.base import (
    Box,
    EncoderFacts,
    EncoderInputs,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
)
from polyvex.encoders.files import allows_commerce, files_beside, find_in_folder, find_on_hub, read_weights
from polyvex.encoders.images import normalize, resize_square
from polyvex.encoders.weights import WeightsReport, find_in_wheel, load_strictly, sha256_of

__all__ = [
    "Box",
    "EncoderFacts",
    "EncoderInputs",
    "EncoderOptions",
    "License",
    "VisionEncoder",
    "WeightsPlace",
    "WeightsReport",
    "allows_commerce",
    "files_beside",
    "find_in_folder",
    "find_in_wheel",
    "find_on_hub",
    "load_strictly",
    "normalize",
    "read_weights",
    "resize_square",
    "sha256_of",
]
