"""Checkpoints of a stage: one counts once all of its files are on the disk, with their checksums beside them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from polyvex.errors import RunError
from polyvex.manifest import Manifest, read_manifest
from polyvex.storage import flush, share, write_text

COMPLETE = "complete.json"
"""File of a checkpoint with the checksums of all others; it is written last."""

KEPT = 2
"""Checkpoints that are kept while a stage trains: the newest, and one to fall back on if a file of that is damaged."""

NEEDED = ("trainer_state.json", "window.json")
"""Files without which a checkpoint does not continue a run exactly."""

_NAME = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: Path) -> None:
    """Make a checkpoint count, now that all of its files are written."""
    share(checkpoint)
    flush(checkpoint)
    write_text(checkpoint / COMPLETE, Manifest.of(checkpoint).model_dump_json(indent=2))


def steps_of(checkpoint: Path) -> int:
    """How many steps were trained when a checkpoint was saved."""
    found = _NAME.fullmatch(checkpoint.name)
    assert found is not None, checkpoint
    return int(found.group(1))


def newest_whole(folder: Path, *, remove: bool, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint in ``folder`` that has every file as it was written; None without one.

    Args:
        remove: delete the damaged ones; false in all but the first of several processes.
        say: gets a line for each damaged checkpoint that was complete once.
    """
    for checkpoint in _by_age(folder):
        faults = _faults(checkpoint)
        if not faults:
            return checkpoint
        if (checkpoint / COMPLETE).exists():
            say(f"checkpoint {checkpoint} is damaged and not used: {'; '.join(faults)}")
        if remove:
            _delete(checkpoint)
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but the newest checkpoints."""
    for checkpoint in _by_age(folder)[count:]:
        _delete(checkpoint)


def _by_age(folder: Path) -> list[Path]:
    """Checkpoints from the newest to the oldest."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=steps_of, reverse=True)


def _faults(checkpoint: Path) -> list[str]:
    path = checkpoint / COMPLETE
    if not path.exists():
        return [f"it was not written to its end (no {COMPLETE})"]
    try:
        manifest = read_manifest(json.loads(path.read_text(encoding="utf-8")), path)
        if lost := [name for name in NEEDED if name not in manifest.files]:
            return [f"{COMPLETE} does not list {', '.join(lost)}"]
        return manifest.faults(checkpoint)
    except (ValueError, RunError):  # not JSON, not UTF-8, or not a manifest
        return [f"{COMPLETE} cannot be read"]
    except FileNotFoundError:  # the first of several processes has deleted it meanwhile
        return ["it was deleted"]


def _delete(checkpoint: Path) -> None:
    (checkpoint / COMPLETE).unlink(missing_ok=True)  # first, so that what is half deleted does not count
    shutil.rmtree(checkpoint)
