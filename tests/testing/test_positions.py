"""The kit passes good position schemes, and fails each broken one for its own reason."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from polyvex.positions import PositionOptions, PositionScheme, register_position_schemes
from polyvex.testing import check_position_scheme
from polyvex.tokens import TEXT, Positions, SequenceLayout, VisualLayout

SCHEMES = register_position_schemes()


class Good(PositionScheme):
    """Every token has a position of its own, and a learned vector is added to each visual one."""

    summary: ClassVar[str] = "a test"

    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        self.added = nn.Parameter(torch.zeros(dim))

    def opens(self, layout: SequenceLayout) -> Tensor:
        return torch.ones_like(layout.valid)

    def embed(self, values: Any, *rest: Any) -> Any:
        return values + self.added


class NoSummary(Good):
    summary = ""


class ReadsValuesWhenBuilt(Good):
    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        self.first = self.added[0].item()


class ReturnsATensor(Good):
    def assign(self, layout: SequenceLayout) -> Any:
        return super().assign(layout).ids


class Changed(Good):
    """Changes ids or next_id of a good scheme."""

    def assign(self, layout: SequenceLayout) -> Positions:
        positions = super().assign(layout)
        return Positions(**{"ids": positions.ids, "next_id": positions.next_id, **self.changed(positions, layout)})

    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        raise NotImplementedError


class OneIdTooMany(Changed):
    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        return {"ids": torch.cat([positions.ids, positions.ids[:, -1:]], dim=1)}


class OneNextIdForAll(Changed):
    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        return {"next_id": positions.next_id.max()}


class BeginsWithOne(Changed):
    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        return {"ids": positions.ids + 1, "next_id": positions.next_id + 1}


class CountsByTwo(Changed):
    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        return {"ids": positions.ids * 2, "next_id": positions.next_id * 2 - 1}


class CountsBackwards(Changed):
    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        return {"ids": -positions.ids}


class TextSharesWithImages(Good):
    def assign(self, layout: SequenceLayout) -> Positions:
        behind = torch.zeros_like(layout.valid)
        behind[:, 1:] = (layout.image[:, 1:] == TEXT) & (layout.image[:, :-1] != TEXT)
        count = (layout.valid & ~behind).long().cumsum(dim=1)
        return Positions(ids=(count - 1).clamp(min=0).masked_fill(~layout.valid, 0), next_id=count[:, -1])


class ImagesShareWithText(Good):
    def opens(self, layout: SequenceLayout) -> Tensor:
        return layout.image == layout.image.roll(1, dims=1)


class ForgetsTheLast(Changed):
    def changed(self, positions: Positions, layout: SequenceLayout) -> dict[str, Tensor]:
        return {"next_id": positions.next_id - 1}


class CountsPadding(Good):
    """Counts places, padding among them."""

    def assign(self, layout: SequenceLayout) -> Positions:
        ids = torch.arange(layout.valid.shape[1]).expand(layout.valid.shape)
        last = (layout.valid * ids).amax(dim=1)
        return Positions(ids=ids.masked_fill(~layout.valid, 0), next_id=last + 1)


class LooksAtOtherRows(Good):
    """The images of a batch take as many positions in all rows."""

    def opens(self, layout: SequenceLayout) -> Tensor:
        several = (layout.image > 0).any()
        return torch.ones_like(layout.valid) if several else layout.coords[..., 1] <= 0


class EmbedsInFloat32(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return super().embed(values, *rest).float()


class EmbedsImagesTogether(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values - values.mean() + self.added


class RandomEmbeddings(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values + self.added + torch.randn(()) * 0.1


class IdsWithAFraction(Good):
    def assign(self, layout: SequenceLayout) -> Positions:
        positions = super().assign(layout)
        return Positions(ids=positions.ids + 0 * torch.rand(()), next_id=positions.next_id)


class EmbedsMoreEachTime(Good):
    """Gives a token more with every call; check_same must not compare what has other shapes."""

    calls: ClassVar[int] = 0

    def embed(self, values: Any, *rest: Any) -> Any:
        type(self).calls += 1
        return torch.cat([values] + [values[:, :1]] * self.calls, dim=1)


class VectorWithoutUse(Good):
    def embed(self, values: Any, *rest: Any) -> Any:
        return values


class KeepsANumberOfItsOwn(Good):
    made: ClassVar[int] = 0

    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        type(self).made += 1
        self.factor = type(self).made

    def embed(self, values: Any, *rest: Any) -> Any:
        return (values + self.added) * self.factor


BROKEN = {
    NoSummary: "expected one line for listings",
    ReadsValuesWhenBuilt: 'cannot be built under torch.device\\("meta"\\)',
    ReturnsATensor: "assign returned Tensor",
    OneIdTooMany: r"ids of shape \(6, 24\) for 6 sequences; want \(6, 23\)",
    OneNextIdForAll: r"next_id of shape \(\); expected one per sequence",
    BeginsWithOne: "the first id of a sequence is 1; expected 0",
    CountsByTwo: "from text to text the id grows by 2; expected 1",
    CountsBackwards: "ids fall along a sequence",
    TextSharesWithImages: "text shares the position of what is before it",
    ImagesShareWithText: "an image shares the position of what is before it",
    ForgetsTheLast: "next_id is 4 behind the id 4; expected 5",
    CountsPadding: "padding on the left changes ids or next_id",
    LooksAtOtherRows: "depend on the other sequences of its batch",
    EmbedsInFloat32: "embed returned .*torch.float32.*; expected what came in",
    EmbedsImagesTogether: "depend on the other images of its batch",
    RandomEmbeddings: "two outputs for the same input",
    EmbedsMoreEachTime: r"two outputs for the same input.*\(embeddings: \(2, 11, 8\) and \(2, 12, 8\)\)",
    VectorWithoutUse: "no gradient reaches added",
    KeepsANumberOfItsOwn: "other values after its state dict went through a new instance",
}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_schemes_of_the_core_pass(name: str):
    scheme = check_position_scheme(SCHEMES[name], SCHEMES[name].Options())

    assert isinstance(scheme, SCHEMES[name])
    assert not scheme.training


@pytest.mark.parametrize("good", [Good, IdsWithAFraction], ids=lambda good: good.__name__)
def test_a_good_scheme_passes(good: type[Good]):
    """Ids may be numbers with a fraction, too."""
    check_position_scheme(good, PositionOptions())


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_scheme_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_position_scheme(broken, PositionOptions())

    assert broken.__name__ in str(caught.value)
