"""Find a checkpoint on this machine, and read its facts: config.json, model card, image processor."""

import copy
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from polyvex.encoders import License, WeightsPlace, allows_commerce, find_in_folder, find_on_hub
from polyvex_hf.known import KNOWN, Known
from polyvex_hf.reading import stated_size

CONFIG = "config.json"
CARD = "README.md"
Size = tuple[int, int]

UNKNOWN = "unknown (no licence in a model card here)"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint by name; equal ones have the same structure.

    ``model_type`` is transformers' name of the family, ``text`` the configuration as text, and ``folder`` where its
    files are (None where only its facts are known). ``read`` is the configuration that stands in the folder.
    """

    name: str
    model_type: str
    text: str
    folder: Path | None = None
    read: Any = field(default=None, compare=False, repr=False)

    @property
    def known(self) -> Known | None:
        """Facts that came with this package."""
        return None if Path(self.name).is_dir() else KNOWN.get(self.name)

    @property
    def vision(self) -> Any:
        """transformers' configuration of the vision tower; where it is known, it is made only when it is asked for."""
        return _known_config(self.name) if self.read is None else self.read

    def stated_size(self) -> Size | None:
        """Height and width that the configuration states, if any."""
        side = self.known.config.get("image_size") if self.known else None
        return stated_size(self.vision) if side is None else (side, side)

    def config(self) -> Any:
        """A configuration of one's own to change."""
        return copy.deepcopy(self.vision)


def find_checkpoint(name: str) -> Checkpoint:
    """Read what there is of a directory, a name on the hub that is known, or one in the hub's local cache.

    Raises:
        ValueError: if there is no ``config.json``, or it is not of a model that sees.
    """
    if Path(name).is_dir():
        folder = Path(name)
        if not (folder / CONFIG).is_file():
            raise ValueError(f"no {CONFIG} in {folder}; expected a directory that save_pretrained wrote")
        return _read(name, folder)
    cached = folder_of(name)
    if name in KNOWN:
        known = KNOWN[name]
        return Checkpoint(name, known.model_type, json.dumps(known.config), cached)
    if cached is None:
        raise ValueError(
            f"'{name}' is no directory, and not in the hub's local cache. To get it: hf download {name}. Known without "
            f"that: {', '.join(KNOWN)}"
        )
    return _read(name, cached)


def folder_of(name: str) -> Path | None:
    """The directory of a checkpoint, or its snapshot in the hub's local cache; None if it is on neither."""
    if Path(name).is_dir():
        return Path(name)
    config = find_on_hub(name, (CONFIG,)) if _is_hub_name(name) else None
    return config.parent if config else None


def _read(name: str, folder: Path) -> Checkpoint:
    vision = read_config(folder)
    return Checkpoint(name, vision.model_type, _text(vision), folder, vision)


@lru_cache(maxsize=16)
def _known_config(name: str) -> Any:
    from transformers import AutoConfig  # only here: it takes a second, and listings can do without

    return AutoConfig.for_model(KNOWN[name].model_type, **KNOWN[name].config)


def read_config(folder: Path) -> Any:
    """transformers' configuration of a folder, or of its vision tower. Code that lies beside it is never run.

    Raises:
        ValueError: if the file is damaged, or of a model that transformers does not have.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # json, huggingface_hub's validation and transformers each raise their own
        raise ValueError(
            f"{folder / CONFIG}: transformers cannot read it: {' '.join(str(error).split())[:300]}"
        ) from None
    return getattr(config, "vision_config", config)


def differences(known: Known, folder: Path) -> list[str]:
    """Where the folder's ``config.json`` contradicts the facts that came with this package; empty without the file."""
    if not (folder / CONFIG).is_file():
        return []
    vision = read_config(folder)
    if vision.model_type != known.model_type:
        return [f"model_type is {vision.model_type}, expected {known.model_type}"]
    found = {key: getattr(vision, key, None) for key in known.config}
    return [
        f"{key} is {found[key]}, expected {wanted}"
        for key, wanted in known.config.items()
        if _plain(found[key]) != _plain(wanted)
    ]


def weights_of(checkpoint: str, given: str) -> WeightsPlace:
    """Where the weights are: the file that was given, else the directory's or the hub's cache's."""
    if given:
        path = Path(given)
        return WeightsPlace(path=path if path.is_file() else None, install=f"put the weights at {path}")
    if Path(checkpoint).is_dir():
        return WeightsPlace(
            path=find_in_folder(checkpoint),
            install=f"put model.safetensors into {checkpoint}, or give the option weights the path of such a file",
        )
    path = find_on_hub(checkpoint) if _is_hub_name(checkpoint) else None
    return WeightsPlace(
        path=path, install=f"hf download {checkpoint}, or give the option weights the path of such a file"
    )


def license_of(checkpoint: Checkpoint) -> License:
    """The licence that came with this package's facts, else that of the model card beside the checkpoint."""
    if checkpoint.known:
        return checkpoint.known.license
    names = _card_licenses(checkpoint.folder / CARD) if checkpoint.folder else []
    if not names:
        return License(name=UNKNOWN, commercial=False)
    return License(name=", ".join(names), commercial=all(allows_commerce(name) for name in names))


def _card_licenses(path: Path) -> list[str]:
    from huggingface_hub import metadata_load

    try:
        card = (metadata_load(path) if path.is_file() else None) or {}
    except Exception:  # whatever YAML makes of a damaged card: then nobody has named a licence
        return []
    names = card.get("license")
    return [str(name) for name in (names if isinstance(names, list) else [names]) if name]


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _text(config: Any) -> str:
    return json.dumps(config.to_dict(), sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
