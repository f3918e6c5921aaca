"""The kit over a whole plugin: every component, every check, and what is wrong in one line."""

from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from polyvex.data import Dataset, DatasetOptions, Sample
from polyvex.encoders import EncoderOptions, WeightsPlace
from polyvex.errors import DataError, PluginError
from polyvex.evaluation.metrics import ExactMatch
from polyvex.fusion import MLPFusion
from polyvex.hooks import hookimpl, manager
from polyvex.hooks.manager import KINDS, Registries, load_registries
from polyvex.lm.small_llama import SmallLlama
from polyvex.positions.schemes import ShareRow
from polyvex.testing.plugins import KITS, Outcome, check_plugin

from .good import Good, GoodOptions


def plugin(**offers: dict[str, type]) -> Registries:
    """A plugin ``mine`` that registers these components by kind."""
    return load_registries(third_party=False, extra={"mine": module_of(**offers)})


def module_of(**offers: dict[str, type]) -> ModuleType:
    """A plugin's module, from what each hook returns."""
    module = ModuleType("a_plugin")
    for kind, offer in offers.items():
        setattr(module, f"register_{kind}", hookimpl(_returning(offer)))
    return module


def _returning(offer: dict[str, type]) -> Any:
    return lambda: offer


def outcomes(registries: Registries, name: str = "mine", **how: Any) -> list[Outcome]:
    return list(check_plugin(registries, name, **how))


def failures(registries: Registries, **how: Any) -> list[str]:
    return [str(outcome) for outcome in outcomes(registries, **how) if outcome.state != "ok"]


def test_every_kind_has_a_kit():
    assert set(KITS) == set(KINDS)


def test_each_check_of_each_component_is_told():
    found = outcomes(
        plugin(encoders={"good": Good}, position_schemes={"rows": ShareRow}, metrics={"exact": ExactMatch})
    )

    assert {outcome.state for outcome in found} == {"ok"}
    assert [outcome.component for outcome in found if outcome.check == "declaration"] == [
        "encoder good",
        "position scheme rows",
        "metric exact",
    ]
    assert str(found[0]) == "ok        encoder good: declaration"
    assert {"device", "border", "mean and deviation", "tokens row by row"} <= {outcome.check for outcome in found}


class Transposed(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels.transpose(2, 3))


def test_a_broken_component_is_told_and_the_others_go_on():
    found = outcomes(plugin(encoders={"turned": Transposed}, metrics={"exact": ExactMatch}))

    [failed] = [outcome for outcome in found if outcome.state == "FAILED"]
    assert (failed.component, failed.check) == ("encoder turned", "tokens row by row")
    assert "tokens lie column by column" in failed.reason
    assert [outcome for outcome in found if outcome.component == "encoder turned"][-1] is failed, "no check after it"
    assert sum(outcome.component == "metric exact" for outcome in found) == 5


class Crashes(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return torch.nn.Linear(5, 2)(pixels)  # torch's own code raises; what is wrong is here


def test_a_crash_is_told_with_its_place():
    [told] = failures(plugin(encoders={"crash": Crashes}))

    line = next(
        number
        for number, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if "what is wrong is here" in text
    )
    assert told.startswith("FAILED    encoder crash: shape of tokens: RuntimeError: ")
    assert told.endswith(f"(test_plugins.py, line {line})")


class NeedsWeights(Good):
    here: ClassVar[Path | None] = None

    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        return WeightsPlace(path=cls.here, install="pip install the-weights")


class HasWeights(NeedsWeights):
    here = Path(__file__)


class LoadsNothing(HasWeights):
    def load_pretrained(self) -> Any:
        return None


def test_weights_are_loaded_when_asked_for_and_here():
    registries = plugin(encoders={"here": HasWeights})

    assert "weights" not in {outcome.check for outcome in outcomes(registries)}
    assert "weights" in {outcome.check for outcome in outcomes(registries, pretrained=True)}
    [told] = failures(plugin(encoders={"bad": LoadsNothing}), pretrained=True)
    assert "encoder bad: weights: LoadsNothing.load_pretrained returned NoneType" in told
    assert failures(plugin(encoders={"bad": LoadsNothing})) == []


def test_weights_that_are_not_here_are_told_as_skipped():
    found = outcomes(plugin(encoders={"away": NeedsWeights}), pretrained=True)

    [skipped] = [outcome for outcome in found if outcome.state == "skipped"]
    assert str(skipped) == (
        "skipped   encoder away: weights: not on this machine. To get them: pip install the-weights"
    )
    assert found[-1].check == "border", "the other checks run with fresh weights"


class FolderOptions(DatasetOptions):
    folder: str = Field(description="Where the picture is.")


class Pictures(Dataset[FolderOptions]):
    Options: ClassVar[type[DatasetOptions]] = FolderOptions
    summary: ClassVar[str] = "a test"

    def splits(self) -> list[str]:
        return ["train"]

    def samples(self, split: str) -> list[Sample]:
        if split != "train":
            raise DataError("no such split")
        return [Sample(id="1", question="what?", answer="that", images=(f"{self.options.folder}/a.png",))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    return tmp_path


def test_options_without_a_default_have_to_be_given(folder: Path):
    registries = plugin(datasets={"pictures": Pictures})

    [told] = failures(registries)
    assert told == (
        "FAILED    data set pictures: options: folder: Field required. "
        "Give it by --set, or let FolderOptions.example() give it"
    )
    assert failures(registries, changes=[f"pictures.folder={folder}"]) == []


def test_an_example_gives_options(folder: Path):
    class ExampleOptions(FolderOptions):
        @classmethod
        def example(cls) -> "ExampleOptions":
            return cls(folder=str(folder))

    class Exemplary(Pictures):
        Options = ExampleOptions

    registries = plugin(datasets={"pictures": Exemplary})
    assert failures(registries) == []
    assert "no image at elsewhere/a.png" in failures(registries, changes=["pictures.folder=elsewhere"])[0]


class SeenOptions(GoodOptions):
    gain: int = Field(default=1, ge=1, description="Factor of all tokens.")


class TellsItsGain(Good):
    """Fails with its gain, so that a test can read which options it was checked with."""

    Options = SeenOptions

    def features(self, pixels: Tensor) -> Tensor:
        raise ValueError(f"gain is {self.options.gain}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], "gain is 1"),
        (["a.gain=3"], "gain is 3"),
        (["a.gain=3", "a.gain=4"], "gain is 4"),
        (["a.gain=0"], "encoder a: options: gain: Input should be greater than or equal to 1"),
        (["a.gian=3"], "encoder a: options: gian: Extra inputs are not permitted"),
        (["a.gain=text"], "encoder a: options: gain: Input should be a valid integer"),
    ],
)
def test_options_can_be_changed(changes: list[str], told: str):
    [failed] = failures(plugin(encoders={"a": TellsItsGain}), changes=changes)

    assert told in failed


@pytest.mark.parametrize("change", ["gain=3", "b.gain=3", "a.gain", "a.=3", "a"])
def test_a_change_of_nothing_is_refused(change: str):
    with pytest.raises(PluginError, match=f"--set {change}: expected COMPONENT.OPTION=VALUE"):
        outcomes(plugin(encoders={"a": TellsItsGain}), changes=[change])


def test_a_metric_takes_no_options():
    [failed] = failures(plugin(metrics={"exact": ExactMatch}), changes=["exact.case=true"])

    assert "ExactMatch has no options; got case" in failed


def test_one_component_may_be_picked():
    registries = plugin(encoders={"turned": Transposed}, metrics={"exact": ExactMatch})

    assert {outcome.component for outcome in outcomes(registries, components=["exact"])} == {"metric exact"}
    with pytest.raises(PluginError, match=r"unknown component 'exakt'\. Did you mean 'exact'"):
        outcomes(registries, components=["exakt"])


def test_language_models_are_checked_by_what_they_say():
    found = outcomes(plugin(language_models={"small": SmallLlama}))

    assert [(outcome.check, outcome.state) for outcome in found] == [("declaration", "ok")]


@pytest.mark.parametrize(
    "name", ["polyvex.fusion", "polyvex.positions", "polyvex.moe", "polyvex.lm", "polyvex.evaluation"]
)
def test_the_core_keeps_its_own_contracts(name: str):
    found = outcomes(load_registries(third_party=False), name)

    if name == "polyvex.lm":  # `pretrained` and `gguf` are nothing without the name of a model
        assert [outcome.check for outcome in found if outcome.state == "FAILED"] == ["options"] * 2
    else:
        assert {outcome.state for outcome in found} == {"ok"}


def test_an_unknown_plugin_is_told_with_its_neighbours():
    with pytest.raises(PluginError, match=r"unknown plugin 'mien'\. Did you mean 'mine'"):
        outcomes(plugin(fusions={"a": MLPFusion}), "mien")


def test_a_plugin_of_nothing_is_told():
    with pytest.raises(PluginError, match="plugin mine registers nothing"):
        outcomes(plugin())


def test_a_plugin_whose_names_are_taken_is_told_by_whom(monkeypatch: pytest.MonkeyPatch):
    registries = installed(monkeypatch, **{name: module_of(fusions={"same": MLPFusion}) for name in ("one", "two")})

    with pytest.raises(PluginError, match="nothing of plugin one can be used: two plugins register the fusion 'same'"):
        outcomes(registries, "one")


def installed(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> Registries:
    """These modules as the only installed plugins, all of one package."""
    from types import SimpleNamespace

    package = SimpleNamespace(metadata={"Name": "Polyvex_Both"}, version="1.0", requires=None)
    points = [
        SimpleNamespace(name=name, load=lambda module=module: module, dist=package) for name, module in modules.items()
    ]
    monkeypatch.setattr(manager, "entry_points", lambda group: points)
    return load_registries()


@pytest.mark.parametrize("name", ["polyvex-both", "Polyvex_Both", "polyvex.both"])
def test_a_package_stands_for_all_its_plugins(name: str, monkeypatch: pytest.MonkeyPatch):
    one, two = module_of(metrics={"a": ExactMatch}), module_of(metrics={"b": ExactMatch})
    registries = installed(monkeypatch, one=one, two=two)

    assert {outcome.component for outcome in outcomes(registries, name)} == {"metric a", "metric b"}
    assert {outcome.component for outcome in outcomes(registries, "two")} == {"metric b"}


def test_a_broken_plugin_is_not_checked(monkeypatch: pytest.MonkeyPatch):
    registries = installed(monkeypatch, one=module_of(metric={"a": ExactMatch}))

    with pytest.raises(PluginError, match=r"plugin one \(Polyvex_Both 1.0\) is broken: .*unknown hook.*plugins doctor"):
        outcomes(registries, "one")


def test_a_blocked_plugin_is_not_checked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POLYVEX_DISABLE_PLUGINS", "one")
    registries = installed(monkeypatch, one=module_of(metrics={"a": ExactMatch}))

    with pytest.raises(PluginError, match="is disabled: named in POLYVEX_DISABLE_PLUGINS"):
        outcomes(registries, "one")
