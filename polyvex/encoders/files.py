"""Weight files: where they may be on this machine, and how they are read without running anything that is in them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from polyvex.errors import WeightsError
from polyvex.storage import check_readable

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names that a folder's weights may have, the preferred ones first: safetensors cannot run code."""

INDEX = ".index.json"
"""How the name of an index of several weight files ends."""

COMMERCE_RULED_OUT = frozenset({"nc", "non", "noncommercial", "research", "other", "unknown"})
"""Words of a licence's name that rule commerce out, or leave it open."""


FOREIGN = re.compile(r"unsupported (?:global: )?(?:GLOBAL|class) (\S+)", re.IGNORECASE)
"""How torch names what a pickle wants to call, if it is read as weights only."""

ADVICE = re.compile(r"Weights only load failed\..*?trusted source\. ?")
"""How torch begins then: that the file could be read if its code were run."""


def find_in_folder(folder: str | Path, names: Sequence[str] = WEIGHT_FILES) -> Path | None:
    """The weight file of a folder, safetensors before pickles; None if there is none."""
    found = (Path(folder) / name for name in names)
    return next((path for path in found if path.is_file()), None)


def find_on_hub(repository: str, names: Sequence[str] = WEIGHT_FILES, *, revision: str | None = None) -> Path | None:
    """A repository's file in the hub's local cache, safetensors before pickles. Nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        if isinstance(found := try_to_load_from_cache(repository, name, revision=revision), str):
            return Path(found)
    return None


def files_beside(path: Path | None, names: Sequence[str]) -> tuple[Path, ...]:
    """Those of some files that lie in the folder of ``path``."""
    return () if path is None else tuple(found for name in names if (found := path.parent / name).is_file())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, from what ``torch.save`` wrote, or from an index of several such files.

    Pickles are read with ``weights_only=True``: nothing in them runs.

    Raises:
        WeightsError: if a file is damaged, or holds something else than tensors by name.
        StorageError: if this user has no permission to read a file.
    """
    if path.name.endswith(INDEX):
        return {key: value for shard in _shards(path) for key, value in read_weights(shard).items()}
    check_readable(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"no weights at {path}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to, an IndexError for one
        raise unreadable(path, error) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no weights; expected a state dict as safetensors or as torch saves it")
    return dict(state)


def unreadable(path: Path, error: Exception) -> WeightsError:
    """What to say of a weight file that cannot be read. torch's own advice, to let a pickle run, is not passed on."""
    text = ADVICE.sub("", " ".join(str(error).split()))
    if found := FOREIGN.search(text):
        return WeightsError(
            f"{path}: holds more than tensors ({found[1]}), and reading that would run code of the file, so it is not "
            "read. Take the weights as safetensors, or a file that has the state dict alone"
        )
    return WeightsError(
        f"{path}: not readable as weights, perhaps truncated; fetch it again. {type(error).__name__}: {text[:200]}"
    )


def weight_files(path: Path) -> list[Path]:
    """The file itself; of an index, the index and every file that it names.

    Raises:
        WeightsError: if an index cannot be read, or names files elsewhere than in its own folder.
    """
    return [path, *_shards(path)] if path.name.endswith(INDEX) else [path]


def _shards(path: Path) -> list[Path]:
    """The files that an index names."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        shards = sorted({str(name) for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: not an index of weight files ({type(error).__name__}: {error})") from None
    if bad := [name for name in shards if Path(name).name != name]:
        raise WeightsError(f"{path}: names the file {bad[0]!r}, which is not in its own folder")
    if lost := [name for name in shards if not (path.parent / name).is_file()]:
        raise WeightsError(f"{path}: names the file {lost[0]!r}, but there are no weights at {path.parent / lost[0]}")
    return [path.parent / name for name in shards]


def allows_commerce(license_name: str | None) -> bool:
    """Whether a licence allows commerce, by its name. One that nobody names, or ``other``, does not."""
    if not license_name:
        return False
    words = re.split(r"[^a-z0-9]+", license_name.lower())
    return not COMMERCE_RULED_OUT.intersection(words)
