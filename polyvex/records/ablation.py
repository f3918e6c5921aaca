"""Records of an ablation: the result of each cell, and the index of all of them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from polyvex.records.evaluation import Score
from polyvex.records.files import Record
from polyvex.records.run import Count

Difference = Annotated[float, Field(ge=-1, le=1)]


class Part(BaseModel):
    """A table inside a record."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class PlannedCell(Part):
    """One cell of the plan: its id, which is its folder's name, its values in one line, and its seed."""

    id: str
    label: str
    seed: int


class CellResult(Record):
    """``cells/<id>/result.json`` of a finished cell; ``answers`` is the path of its answers below the cell."""

    id: str
    label: str
    seed: int
    accuracy: Score
    metric: str = "accuracy"
    graded: bool = False
    answers: str = ""
    answers_sha256: str | None = None


class ComparedRecord(Part):
    """The figures of one combination of values; see :class:`~polyvex.ablation.compare.Result`."""

    label: str
    values: dict[str, Any]
    seeds: Annotated[list[int], Field(min_length=1)]
    questions: Count
    accuracy: Score
    interval: tuple[Score, Score]
    by_seed: list[Score]
    difference: Difference | None
    difference_interval: tuple[Difference, Difference] | None
    visual_tokens: Count
    positions: Count
    metric: str = "accuracy"
    graded: bool = False


class AblationIndex(Record):
    """``ablation.json``."""

    axes: dict[str, list[Any] | str] = Field(default_factory=dict)
    cells: list[PlannedCell] = Field(default_factory=list)
    results: list[ComparedRecord] = Field(default_factory=list)
    failed: dict[str, str] = Field(default_factory=dict)
