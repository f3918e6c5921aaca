"""The kit passes a good data set, and fails each broken one for its own reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image
from pydantic import Field

from polyvex.data.base import Dataset, DatasetOptions, Sample
from polyvex.errors import DataError
from polyvex.testing import check_dataset


class GoodOptions(DatasetOptions):
    folder: str = Field(description="Where the image is.")


class Good(Dataset):
    """Three questions about one image."""

    Options: ClassVar[type[DatasetOptions]] = GoodOptions
    summary: ClassVar[str] = "a good data set"
    options: GoodOptions

    def splits(self) -> list[str]:
        return ["train", "test"]

    def samples(self, split: str) -> Sequence[Sample]:
        if split not in ("train", "test"):
            raise DataError(f"no split '{split}'")
        return [self.sample(split, number) for number in range(3)]

    def sample(self, split: str, number: int) -> Sample:
        images = (str(Path(self.options.folder) / "image.png"),)
        return Sample(id=f"{split}-{number}", question="what?", answer="that", images=images)


class NoSplits(Good):
    def splits(self) -> list[str]:
        return []


class RepeatsASplit(Good):
    def splits(self) -> list[str]:
        return ["train", "train"]


class TakesAnySplit(Good):
    def samples(self, split: str) -> Sequence[Sample]:
        return [self.sample(split, 0)]


class RaisesKeyError(Good):
    def samples(self, split: str) -> Sequence[Sample]:
        return {"train": super().samples, "test": super().samples}[split](split)


class Empty(Good):
    def samples(self, split: str) -> Sequence[Sample]:
        return super().samples(split)[:0]


class Generator(Good):
    def samples(self, split: str) -> Sequence[Sample]:
        return iter(super().samples(split))  # type: ignore[return-value]


class SameIds(Good):
    def sample(self, split: str, number: int) -> Sample:
        return super().sample(split, 0)


class NoAnswer(Good):
    def sample(self, split: str, number: int) -> Sample:
        return Sample(id=str(number), question="what?", answer=" ")


class PathsAsText(Good):
    def sample(self, split: str, number: int) -> Sample:
        return Sample(id=str(number), question="what?", answer="that", images="image.png")  # type: ignore[arg-type]


class OtherOrderEachTime(Good):
    calls: ClassVar[int] = 0

    def samples(self, split: str) -> Sequence[Sample]:
        type(self).calls += 1
        return list(super().samples(split))[:: (-1) ** self.calls]


class MissingImage(Good):
    def sample(self, split: str, number: int) -> Sample:
        last = str(Path(self.options.folder) / "none.png")
        return super().sample(split, number) if number < 2 else Sample(id="2", question="q", answer="a", images=(last,))


BROKEN = {
    NoSplits: "expected a list of names",
    RepeatsASplit: "repeats a name",
    TakesAnySplit: "an unknown split gives samples",
    RaisesKeyError: "an unknown split raises KeyError",
    Empty: "no samples",
    Generator: "expected a sequence",
    SameIds: "sample 'train-0': another sample has the same id",
    NoAnswer: "answer is ' '; expected some text",
    PathsAsText: "expected a tuple of texts",
    OtherOrderEachTime: "their order differ",
    MissingImage: "sample '2' has an unusable image: no image at",
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "image.png")
    return str(tmp_path)


def test_a_good_dataset_passes_and_is_returned(folder: str):
    assert isinstance(check_dataset(Good, GoodOptions(folder=folder)), Good)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_dataset_fails_for_its_own_reason(broken: type[Good], folder: str):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_dataset(broken, GoodOptions(folder=folder))

    assert broken.__name__ in str(caught.value)
