"""Records of an evaluation: its figures. Its answers are lines of :class:`~polyvex.evaluation.evaluate.Answered`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from polyvex.records.files import Record
from polyvex.records.run import Count

Score = Annotated[float, Field(ge=0, le=1)]


class KindFigures(BaseModel):
    """Mean score and number of the questions of one kind."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    accuracy: Score
    questions: Count


class Weighed(BaseModel):
    """What the fusion weighs an encoder, and the share of samples that use it."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    weight: float
    used: float


class EvaluationSummary(Record):
    """``evaluation/<name>.json``; ``accuracy`` is the mean score, None without answers.

    ``answers_sha256`` is of the file of its answers; None in files of earlier versions of polyvex.
    """

    name: str
    metric: str
    graded: bool = False
    accuracy: Score | None
    interval_95: tuple[Score, Score]
    questions: Count
    skipped: Count
    cut: Count = 0
    rescored_from: str | None = None
    images: bool
    answers_sha256: str | None = None
    by_kind: dict[str, KindFigures]
    expert_load: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    encoder_weights: dict[str, dict[str, Weighed]] = Field(default_factory=dict)
