"""Records of a run: its lock, the end of a stage, and what a stage logs."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from polyvex.records.files import Record

Count = Annotated[int, Field(ge=0)]
Hashes = dict[str, dict[Literal["trained", "frozen"], str]]
"""SHA-256 of weights by part of the model, and by whether they train in the stage."""


class LockRecord(Record):
    """``lock.json``: versions, hashes and counts that decide the result of a run."""

    samples: Count
    images: Count
    unreadable_images: list[str]


class WeightsLock(Record):
    """``lock.json``, as far as a run that starts from another one reads it."""

    weights_sha256: dict[str, str | None]


class DataLock(LockRecord):
    """``lock.json``, with what is compared before a finished run reads data again."""

    weights_sha256: dict[str, str | None]
    data_sha256: dict[Literal["train", "test"], str]
    counts: dict[Literal["train", "test"], Count]


class DoneRecord(Record):
    """``done.json`` of a stage."""

    seconds: Annotated[float, Field(ge=0)]
    trained_parameters: Count
    hashes_before: Hashes
    hashes_after: Hashes


class MetricsLine(Record):
    """One line of ``metrics.jsonl``: the step, and the losses and rates that it logs."""

    model_config = ConfigDict(**{**Record.model_config, "allow_inf_nan": True})
    __pydantic_extra__: dict[str, float]  # type: ignore[assignment]

    step: Count
