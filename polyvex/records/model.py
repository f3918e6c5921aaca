"""Records of a stored model: the keys of ``config.json`` and ``processor_config.json`` that polyvex itself reads."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from polyvex.records.files import Record
from polyvex.records.run import Count


class EncoderTable(BaseModel):
    """The table of an encoder, with its options beside its name."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    use: str
    name: str


class Run(BaseModel):
    """The tokens that one tile of an image gives; ``grid`` is [rows, columns] or None."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    source: Count
    tokens: Count
    grid: tuple[Count, Count] | None


class ConfigRecord(Record):
    """``config.json``."""

    text_config: dict[str, Any]
    encoders: list[EncoderTable]
    fusion: dict[str, Any]
    positions: dict[str, Any]
    moe: dict[str, Any] | None = None
    adapters: dict[str, Any] | None = None
    plugins: dict[str, str] | None = None
    separator_ids: list[int] | None = None
    image_token_id: int


class ProcessorRecord(Record):
    """``processor_config.json``."""

    encoders: list[EncoderTable]
    template: str
    runs: list[Run]
    plugins: dict[str, str] = Field(default_factory=dict)
    arrangement: dict[str, Any] = Field(default_factory=dict)
    separator_ids: Annotated[list[int], Field(default_factory=list)]
    end_ids: Annotated[list[int], Field(default_factory=list)]
    stop_ids: Annotated[list[int], Field(default_factory=list)]
