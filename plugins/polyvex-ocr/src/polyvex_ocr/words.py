"""The words on a picture as tokens: what PP-OCRv4's recogniser makes of each, and where it is."""

import warnings
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import (
    EncoderFacts,
    EncoderInputs,
    EncoderOptions,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    normalize,
    resize_square,
)
from polyvex.encoders.images import to_rgb
from polyvex.options import LocalPath
from polyvex.tokens import TokenShape, VisualTokens
from polyvex_ocr.files import RECOGNIZER
from polyvex_ocr.graph import OnnxGraph
from polyvex_ocr.lines import DETECTOR_SIDE, STRIDE, Line
from polyvex_ocr.read import LEAST_CONFIDENCE, find_strips, place_of
from polyvex_ocr.recognize import Recognition, Spelled, alphabet, recognize, spell
from polyvex_ocr.regions import HALF, LICENSE
from polyvex_ocr.strips import HEIGHT, WIDEST
from polyvex_ocr.weights import load_graph

FEATURES = 120
"""Width of the recogniser's features."""

DIM = FEATURES + 4 + 1
"""A token's width: the features, the box, and whether there is a word."""

THUMBNAIL = 32
"""Side in pixels of the picture that is among the inputs."""


class WordsLeftOut(UserWarning):
    """An image has more text than there are places for words."""


class OcrWordsOptions(EncoderOptions):
    """Options of ``ocr-words``."""

    max_words: int = Field(
        default=64, ge=1, description="Tokens per image: places for words. A warning tells of words left out."
    )
    min_confidence: float = Field(
        default=LEAST_CONFIDENCE,
        ge=0,
        le=1,
        description="Words whose characters have a lower mean probability are left out.",
    )
    detector_side: int = Field(
        default=DETECTOR_SIDE,
        ge=STRIDE,
        multiple_of=STRIDE,
        description="A smaller image is enlarged until its shorter side has so many pixels, before lines of text are "
        "looked for. Less is quicker and misses small text.",
    )
    weights: LocalPath = Field(
        default="", description="Folder with both ONNX files; empty for the rapidocr-onnxruntime wheel."
    )


class OcrWords(VisionEncoder[OcrWordsOptions]):
    """The words of an image in reading order, one token each, read by PP-OCRv4; without a grid.

    A token is the mean of the recogniser's last features (120 wide) over the word, then its box (left, top, right,
    bottom, from 0 to 1 of the image), then 1. Places without a word are zero.

    Finding lines and cutting them out is the transform, which runs the detector's file from this machine; the
    recogniser is the network, and its file the state. Both are run by onnxruntime on the CPU in float32. So the
    encoder is frozen by nature: it has no parameter that PyTorch could train.

    Text that does not fit into ``max_words`` is left out from the end, with a :class:`WordsLeftOut` that counts it.
    """

    Options: ClassVar[type[EncoderOptions]] = OcrWordsOptions
    summary: ClassVar[str] = "PP-OCRv4's words: features and box of each, 125 wide, without a grid; cannot be trained"

    def __init__(self, options: OcrWordsOptions):
        super().__init__(options)
        self.recognizer = OnnxGraph(RECOGNIZER)

    @classmethod
    def describe(cls, options: OcrWordsOptions) -> EncoderFacts:
        """Tell tokens and width. There are no parameters: the weights are inside the graph."""
        return EncoderFacts(
            shape=TokenShape(tokens=options.max_words, dim=DIM),
            image_size=(THUMBNAIL, THUMBNAIL),
            parameters=0,
            license=LICENSE,
            source="PP-OCRv4's mobile text detector and recogniser (PaddleOCR, trained for Chinese and English), as "
            "ONNX in rapidocr-onnxruntime 1.4.4",
        )

    @classmethod
    def weights(cls, options: OcrWordsOptions) -> WeightsPlace:
        """Look for the recogniser's file in the folder ``options.weights``, else in the wheel."""
        return RECOGNIZER.place(options.weights)

    def load_pretrained(self) -> WeightsReport:
        """Take over the recogniser's bytes.

        Raises:
            WeightsError: if the file is missing, damaged or another one.
        """
        return load_graph(self.recognizer, RECOGNIZER.find(self.options.weights))

    def transform(self, image: Image) -> EncoderInputs:
        """Find the lines of text at the image's own size, and cut them out.

        Returns:
            ``lines`` UInt8[max_words 3 48 640], the strips in reading order; ``widths`` Int64[max_words], how much of
            a strip is used, 0 for none; ``boxes`` Float32[max_words 4], left, top, right and bottom from 0 to 1; and
            ``pixels`` Float32[3 32 32], the image in small, of which :meth:`forward` takes only type and device.

        Raises:
            WeightsError: if the detector's file is missing or damaged.
        """
        upright, places = to_rgb(image), self.options.max_words
        strips = find_strips(upright, side=self.options.detector_side, weights=self.options.weights)
        _warn_of(len(strips) - places, f"of {len(strips)} lines of text", places)
        lines = np.zeros((places, 3, HEIGHT, WIDEST), dtype=np.uint8)
        widths, boxes = np.zeros(places, dtype=np.int64), np.zeros((places, 4), dtype=np.float32)
        for place, strip in enumerate(strips[:places]):
            lines[place, :, :, : strip.width] = strip.pixels
            widths[place] = strip.width
            line = strip.line
            boxes[place] = (line.left, line.top, line.right, line.bottom)
        boxes /= np.array([upright.width, upright.height] * 2, dtype=np.float32)
        return {
            "pixels": normalize(resize_square(upright, THUMBNAIL), mean=HALF, std=HALF),
            "lines": torch.from_numpy(lines),
            "widths": torch.from_numpy(widths),
            "boxes": torch.from_numpy(boxes),
        }

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        lines: UInt8[Tensor, "images max_words 3 48 640"],
        widths: Int[Tensor, "images max_words"],
        boxes: Float[Tensor, "images max_words 4"],
    ) -> VisualTokens:
        """Read the strips; one token for each word, in their order, then zeros."""
        tokens = np.zeros((len(pixels), self.options.max_words, DIM), dtype=np.float32)
        used, places = widths.cpu().numpy(), boxes.float().cpu().numpy()
        if used.any():
            characters = alphabet(self.recognizer.session().get_modelmeta().custom_metadata_map["character"])
            for image, strips in enumerate(lines.cpu().numpy()):
                shown = np.flatnonzero(used[image])
                read = self._read([strips[place, :, :, : used[image, place]] for place in shown], characters)
                found = [
                    _token(word, one, places[image, place], int(used[image, place]))
                    for place, (one, words) in zip(shown, read, strict=True)
                    for word in words
                ]
                _warn_of(len(found) - len(tokens[image]), f"of {len(found)} words", len(tokens[image]))
                if found:
                    tokens[image, : len(found)] = found[: len(tokens[image])]
        return VisualTokens.on_grid(torch.from_numpy(tokens).to(pixels.device, pixels.dtype), None)

    def _read(
        self, strips: list[UInt8[np.ndarray, "3 48 width"]], characters: list[str]
    ) -> list[tuple[Recognition, list[Spelled]]]:
        """What the recogniser says of each strip, and the words that are sure enough."""
        recognized = recognize(
            lambda batch: [value.numpy() for value in self.recognizer(torch.from_numpy(batch))], strips
        )
        return [
            (one, [word for word in spell(one.probabilities, characters, width=strip.shape[2]) if self._is_sure(word)])
            for one, strip in zip(recognized, strips, strict=True)
        ]

    def _is_sure(self, word: Spelled) -> bool:
        return word.confidence >= self.options.min_confidence


def _token(
    word: Spelled, recognized: Recognition, box: Float[np.ndarray, " 4"], width: int
) -> Float[np.ndarray, " dim"]:
    """Mean features over the word's steps, its box, and 1."""
    steps = slice(int(word.start), max(int(word.start) + 1, int(np.ceil(word.stop))))
    left, top, right, bottom = box.tolist()
    place = place_of(word, Line(left=left, top=top, right=right, bottom=bottom), width)
    return np.concatenate([recognized.features[steps].mean(axis=0), place, [1.0]]).astype(np.float32)


def _warn_of(surplus: int, what: str, places: int) -> None:
    if surplus > 0:
        message = f"ocr-words: {surplus} {what} of an image are left out, because max_words is {places}. Raise it"
        warnings.warn(message, WordsLeftOut, stacklevel=3)
