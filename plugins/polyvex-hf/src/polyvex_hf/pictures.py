"""From an image to pixels, by the numbers of a checkpoint's image processor."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image, Resampling
from torch import Tensor
from torch.nn import functional as F

from polyvex.encoders import normalize
from polyvex.encoders.images import to_rgb
from polyvex_hf.processors import BILINEAR, CONSTANTS, PROCESSORS, Settings
from polyvex_hf.settings import FILES, Triple, channels, edge_of, filter_of, find_settings

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How a checkpoint wants its images.

    ``resized`` and ``cut`` are sides in pixels: an image is resized to the first, with its aspect ratio or without,
    and the middle is cut out to the second. Only their ratio counts, so that any image size can be had.
    ``warps_from`` is the side from which on nothing is cut. ``rounds`` tells that resized values are 8-bit again.
    """

    mean: Triple
    std: Triple
    resample: int
    resized: float
    cut: float
    keeps_aspect: bool
    warps_from: float = math.inf
    rounds: bool = True

    def check_crop(self, size: Size) -> None:
        """Refuse a size that cutting cannot give.

        Raises:
            ValueError: for a rectangle, where the processor keeps the aspect ratio or cuts.
        """
        if size[0] != size[1] and (self.keeps_aspect or self.resized != self.cut):
            raise ValueError(
                f"image_size {size[0]}x{size[1]}: resize = 'crop' cuts squares for this checkpoint. Give one side, or "
                "resize = 'squash'"
            )

    def squash(self, image: Image, size: Size) -> Float[Tensor, "3 height width"]:
        """Resize to height and width whatever the aspect ratio, and normalise; nothing is cut."""
        square = to_rgb(image).resize((size[1], size[0]), Resampling(self.resample))
        return normalize(square, mean=self.mean, std=self.std)

    def crop(self, image: Image, size: Size) -> Float[Tensor, "3 height width"]:
        """Do what the checkpoint's image processor does, for another size in proportion."""
        picture = to_rgb(image)
        if size[0] >= self.warps_from:
            return self._resized(picture, size)
        edge = int(size[0] * self.resized / self.cut + 1e-6)  # 1e-6: 0.875 x 256 must not come out as 223
        scaled = (edge, int(size[1] * self.resized / self.cut + 1e-6))
        if self.keeps_aspect:
            short, long = sorted(picture.size)
            longer = int(edge * long / short)
            scaled = (longer, edge) if picture.width <= picture.height else (edge, longer)
        pixels = self._resized(picture, scaled)
        top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
        return pixels[:, top : top + size[0], left : left + size[1]].contiguous()

    def _resized(self, picture: Image, size: Size) -> Float[Tensor, "3 height width"]:
        if self.rounds:
            return self.squash(picture, size)
        values = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0).permute(2, 0, 1)
        mode = "bilinear" if self.resample == BILINEAR else "bicubic"
        values = F.interpolate(values[None], size=size, mode=mode, antialias=True, align_corners=False)[0]
        return (values - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]


def find_pictures(folder: Path | None, model_type: str) -> Pictures:
    """The numbers of the folder's image processor; without one, those of the family.

    Raises:
        ValueError: if neither is known, or the file asks for steps that are not known here.
    """
    if found := find_settings(folder):
        path, settings = found
        try:
            return read_settings(settings, default=CONSTANTS.get(model_type, {}).get("image_processor_type"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: cannot follow this image processor: {error}") from None
    if model_type not in CONSTANTS:
        raise ValueError(
            f"no {' or '.join(FILES)} with an image processor here, and mean, deviation and size of the family "
            f"'{model_type}' are not known. Put the checkpoint's file beside its config.json"
        )
    return read_settings(CONSTANTS[model_type], default=None)


def read_settings(settings: Settings, *, default: str | None) -> Pictures:
    """Read what transformers wrote, with the defaults of the class that it names.

    Raises:
        ValueError: if the class is not known, or a step is asked for that would be left out.
    """
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type") or default or ""
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)?(Fast|Pil)?$", "", str(named))
    if kind not in PROCESSORS:
        raise ValueError(f"its class is '{named}'; known are {', '.join(PROCESSORS)}")
    stated = {key: value for key, value in settings.items() if value is not None}
    full = {**PROCESSORS[kind], **stated}
    for step in ("do_resize", "do_rescale"):
        if not full.get(step, True):
            raise ValueError(f"{step} is false; images of any size could not be read")
    if full.get("do_pad") or not math.isclose(full.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-3):
        raise ValueError("it pads, or does not scale values to 0-1")
    plain = not full.get("do_normalize", True)
    resized, keeps_aspect = edge_of("size", full["size"], square="height" in PROCESSORS[kind]["size"])
    return Pictures(
        mean=(0.0, 0.0, 0.0) if plain else channels("image_mean", full["image_mean"]),
        std=(1.0, 1.0, 1.0) if plain else channels("image_std", full["image_std"]),
        resample=filter_of(full["resample"]),
        rounds=kind != "DINOv3ViT",
        **_cut(kind, full, resized, keeps_aspect),
    )


def _cut(kind: str, full: Settings, resized: int, keeps_aspect: bool) -> dict[str, Any]:
    """The side that is cut out, and how the resized one relates to it."""
    if kind == "ConvNext":
        if not 0 < (part := float(full["crop_pct"])) <= 1:
            raise ValueError(f"crop_pct is {part:g}; expected a share of the side, above 0 and at most 1")
        return {"resized": 1.0, "cut": part, "keeps_aspect": True, "warps_from": 384}
    if not full.get("do_center_crop", False):
        if keeps_aspect:
            raise ValueError("it keeps the aspect ratio and does not cut; images would differ in size")
        return {"resized": resized, "cut": resized, "keeps_aspect": False}
    cut, _ = edge_of("crop_size", full["crop_size"], square=True)
    if cut > resized:
        raise ValueError(f"it resizes to {resized} and cuts {cut}, which would put black borders around images")
    return {"resized": resized, "cut": cut, "keeps_aspect": keeps_aspect}
