"""The two ONNX files of PP-OCRv4 that this plugin knows, and how they get here.

A graph's inner tensors are read by name, and its bytes are the encoder's state. So exactly these files are taken:
another export would need other names.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from polyvex.encoders import WeightsPlace, find_in_folder, find_in_wheel
from polyvex.errors import WeightsError

INSTALL = "pip install --no-deps rapidocr-onnxruntime==1.4.4"


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """One file: its name, its length in bytes, its SHA-256, and the inner or last tensors that are read from it."""

    name: str
    size: int
    sha256: str
    outputs: tuple[str, ...]

    def place(self, folder: str) -> WeightsPlace:
        """Where the file is: in ``folder``, or in the installed wheel if that is empty. It is not read."""
        if not folder:
            return WeightsPlace(path=find_in_wheel("rapidocr-onnxruntime", f"models/{self.name}"), install=INSTALL)
        install = f"put {self.name} into {folder}, or leave the option weights empty and {INSTALL}"
        return WeightsPlace(path=find_in_folder(folder, [self.name]), install=install)

    def find(self, folder: str) -> Path:
        """The file's path.

        Raises:
            WeightsError: if it is not there. Says how to get it.
        """
        place = self.place(folder)
        if place.path is None:
            raise WeightsError(f"{self.name} is not on this machine. To get it: {place.install}")
        return place.path

    def read(self, path: Path) -> bytes:
        """The file's bytes.

        Raises:
            WeightsError: if they are not those of this file.
        """
        content = path.read_bytes()
        if len(content) != self.size:
            raise WeightsError(
                f"{path}: has {len(content):,} bytes, expected the {self.size:,} of {self.name}. It is truncated or "
                f"another model; {INSTALL}"
            )
        if (digest := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise WeightsError(
                f"{path}: has the SHA-256 {digest[:12]}…, expected {self.sha256[:12]}… of {self.name}. It is damaged "
                f"or another model; {INSTALL}"
            )
        return content


DETECTOR_NECK = GraphFile(
    name="ch_PP-OCRv4_det_infer.onnx",
    size=4_745_517,
    sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    outputs=("p2o.Concat.1",),
)
"""The text detector, read before its head: 96 channels, one place per 4 × 4 pixels."""

DETECTOR = GraphFile(
    name=DETECTOR_NECK.name, size=DETECTOR_NECK.size, sha256=DETECTOR_NECK.sha256, outputs=("sigmoid_0.tmp_0",)
)
"""The text detector, read at its end: how probable text is, for each pixel."""

RECOGNIZER = GraphFile(
    name="ch_PP-OCRv4_rec_infer.onnx",
    size=10_857_958,
    sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    outputs=("swish_17.tmp_0", "softmax_11.tmp_0"),
)
"""The text recogniser: features before its last layer, 120 channels per 8 pixels, and probabilities of characters."""
