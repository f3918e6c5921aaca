"""What a data set is: samples by split, each a question about images with its answer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from polyvex.options import Options


class DatasetOptions(Options):
    """Options that every data set may extend. It has none of its own."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question with its answer. ``images`` are paths; none for text only. ``kind`` groups questions in reports.

    ``answer`` is the text to train on. ``answers`` lists every correct answer, ``answer`` among them, where there are
    several; metrics accept any of them. Leave it empty if ``answer`` is the only one.
    """

    id: str
    question: str
    answer: str
    images: tuple[str, ...] = ()
    kind: str = "all"
    answers: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every correct answer."""
        return self.answers or (self.answer,)


OptionsT = TypeVar("OptionsT", bound=DatasetOptions, default=Any)
"""The class of a component's own options: ``class Mine(Dataset[MyOptions])``."""


class Dataset(ABC, Generic[OptionsT]):
    """Base of all data sets. ``Options`` is the class of its options, ``summary`` one line for listings."""

    Options: ClassVar[type[DatasetOptions]] = DatasetOptions
    summary: ClassVar[str]

    def __init__(self, options: OptionsT):
        self.options = options

    def missing(self) -> str:
        """How to get what is not on this machine; empty if everything is, or nothing is needed."""
        return ""

    @abstractmethod
    def splits(self) -> list[str]:
        """Names of the splits, such as ``train`` and ``test``."""

    @abstractmethod
    def samples(self, split: str) -> Sequence[Sample]:
        """All samples of a split, always in the same order.

        Raises:
            DataError: if the split is unknown or its files cannot be read. Says how to get the data.
        """
