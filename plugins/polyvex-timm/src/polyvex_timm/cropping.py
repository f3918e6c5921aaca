"""timm's own transform for tests, which most weights were measured with, and whether it cuts something off."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PIL.Image import Image
from torch import Tensor

from polyvex_timm.network import Size

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


def timms_own_transform(config: "PretrainedCfg", size: Size) -> Callable[[Image], Tensor]:
    """From an RGB image to pixels [3 height width], as timm tests these weights."""
    from timm.data.transforms_factory import create_transform

    make: Any = create_transform(**_settings(config, size), is_training=False)
    return make


def cuts_border(config: "PretrainedCfg") -> bool:
    """Whether that transform loses a part of some images: of all if it keeps less than the whole, or of those with
    another aspect than the pixels if it keeps theirs. timm's modes ``squash`` and ``border`` do not keep it, or pad.
    """
    settings = _settings(config, (config.input_size[1], config.input_size[2]))
    return settings["crop_pct"] < 1 or settings["crop_mode"] not in ("squash", "border")


def _settings(config: "PretrainedCfg", size: Size) -> dict[str, Any]:
    from timm.data.config import resolve_data_config

    return resolve_data_config({"input_size": (3, *size)}, pretrained_cfg=config.to_dict())
