"""Load what a run stores; a damaged file is reported by name instead of by an error of the library that reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from polyvex.errors import PolyvexError, RunError, WeightsError
from polyvex.records.files import Record, read_record
from polyvex.records.model import ConfigRecord, ProcessorRecord
from polyvex.remote_code import WAY_OUT, remote_code

CHECKED: dict[str, type[Record]] = {"config.json": ConfigRecord, "processor_config.json": ProcessorRecord}


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Load a model or a processor from ``folder`` inside; check first the JSON files that polyvex wrote there.

    Raises:
        RunError: with the code ``damaged-record``, if such a file is damaged; with the code ``remote-code``, if the
            folder cannot be loaded without code that it brings along.
        WeightsError: with the code ``damaged-model``, if another file cannot be loaded.
    """
    for name, model in CHECKED.items():
        if (folder / name).exists():
            read_record(folder / name, model)
    try:
        yield
    except (PolyvexError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers raises Exception itself; transformers and torch raise nearly every class
        if found := remote_code(folder):
            raise RunError(f"{folder}: {', '.join(found)} asks to run code. {WAY_OUT}", code="remote-code") from error
        reason = str(error) or type(error).__name__
        raise WeightsError(
            f"{folder} cannot be loaded: {reason}. Restore its files, or train it again", code="damaged-model"
        ) from error
