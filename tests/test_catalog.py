"""Listings and the doctor go on where one encoder is faulty, and say which."""

from types import ModuleType
from typing import Any, ClassVar

import pytest

from polyvex.catalog import diagnose, encoder_rows
from polyvex.encoders import EncoderFacts, EncoderOptions, VisionEncoder, WeightsPlace
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries

from .testing.good import Good


class FailsToDescribe(Good):
    @classmethod
    def describe(cls, options: Any) -> EncoderFacts:
        raise KeyError("width")


class KnowsNoWeights(Good):
    @classmethod
    def weights(cls, options: Any) -> Any:
        return None


class DescribesByDict(Good):
    @classmethod
    def describe(cls, options: Any) -> Any:
        return {"tokens": 4}


class NeedsAnOption(EncoderOptions):
    file: str


class Asks(Good):
    Options: ClassVar[type[EncoderOptions]] = NeedsAnOption

    @classmethod
    def weights(cls, options: Any) -> WeightsPlace:
        raise AssertionError("asked without its option")


def with_encoders(**encoders: type[VisionEncoder]) -> Registries:
    module = ModuleType("a_plugin")
    module.register_encoders = hookimpl(lambda: encoders)  # type: ignore[attr-defined]
    return load_registries(third_party=False, extra={"mine": module})


FAULTY = [
    (FailsToDescribe, "KeyError: 'width'"),
    (KnowsNoWeights, "ContractError: KnowsNoWeights returned NoneType, expected WeightsPlace"),
    (DescribesByDict, "ContractError: DescribesByDict returned dict, expected EncoderFacts"),
]


@pytest.mark.parametrize(("encoder", "reason"), FAULTY)
def test_a_listing_tells_the_faulty_one_and_goes_on(encoder: type[VisionEncoder], reason: str) -> None:
    faulty, good = encoder_rows(with_encoders(faulty=encoder, good=Good).encoders)
    assert faulty["BROKEN"] == f"{reason}. See: polyvex plugins test mine"
    assert ("BROKEN" in good, "weights" in good) == (False, True)


@pytest.mark.parametrize(("encoder", "reason"), FAULTY)
def test_the_doctor_tells_the_faulty_one_and_goes_on(encoder: type[VisionEncoder], reason: str) -> None:
    findings = diagnose(with_encoders(faulty=encoder, good=Good))
    told = [finding["what"] for finding in findings if finding["state"] == "broken"]
    assert told == [f"encoder faulty of mine (passed by hand): {reason}"]


def test_what_needs_an_option_is_listed_without_facts() -> None:
    [row] = encoder_rows(with_encoders(asks=Asks).encoders)
    assert set(row) == {"name", "plugin", "summary", "options"}


class Away(Good):
    @classmethod
    def weights(cls, options: Any) -> WeightsPlace:
        return WeightsPlace(path=None, install="pip install away")


def test_missing_weights_are_one_finding_per_plugin() -> None:
    module = ModuleType("away")
    encoders = {name: type(name, (Away,), {}) for name in ("away-a", "away-b", "away-c")}
    module.register_encoders = hookimpl(lambda: encoders)  # type: ignore[attr-defined]
    findings = diagnose(load_registries(third_party=False, extra={"away": module}))
    (missing,) = [finding for finding in findings if finding["state"] == "missing"]
    assert missing["what"] == "weights of 3 encoders of away: not on this machine. To get them: pip install away"
    assert missing["details"] == "away-a, away-b, away-c"
