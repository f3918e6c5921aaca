"""The table of structures holds what the networks give, and is used for nothing else."""

import json
import subprocess
import sys
from importlib.resources import files
from typing import Any

import polyvex_timm.encoder
import polyvex_timm.table
import pytest
from polyvex_timm import TimmEncoder, TimmOptions, register_encoders
from polyvex_timm.named import CHECKPOINTS
from polyvex_timm.table import FILE, known_structure, write_table

AGAIN = "timm or the named checkpoints changed; write the table anew: python -m polyvex_timm"


def test_every_row_is_what_its_network_gives() -> None:
    shipped = json.loads(files("polyvex_timm").joinpath(FILE).read_text(encoding="utf-8"))
    networks = json.loads(write_table(CHECKPOINTS.values()))

    assert shipped["timm"] == networks["timm"], AGAIN
    assert sorted(shipped["structures"]) == sorted(networks["structures"]), AGAIN
    assert sorted(shipped["origins"]) == sorted(networks["origins"]), AGAIN
    for checkpoint, row in networks["structures"].items():
        assert shipped["structures"][checkpoint] == row, AGAIN
        assert shipped["origins"][checkpoint] == networks["origins"][checkpoint], AGAIN


def no_network(*_: Any) -> Any:
    raise LookupError("a network was asked")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_named_ones_are_described_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polyvex_timm.encoder, "structure_of", no_network)
    kind = register_encoders()[name]

    facts = kind.describe(kind.Options())

    assert facts == TimmEncoder.describe(TimmOptions(checkpoint=CHECKPOINTS[name]))
    assert facts.shape.tokens == known_structure(CHECKPOINTS[name], facts.image_size, (-1,), True).grid.tokens  # type: ignore[union-attr]


def test_named_ones_are_described_without_timm() -> None:
    """Importing it takes longer than all the rest of a listing."""
    told = "import sys; from polyvex_timm.named import named_encoders\n"
    told += "for kind in named_encoders().values(): kind.describe(kind.Options()); kind.weights(kind.Options())\n"
    told += "print([name for name in sys.modules if name == 'timm'])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("options", [{"image_size": 448}, {"layers": -2}, {"layers": [-1, -1]}, {"norm": False}])
def test_other_options_ask_the_network(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polyvex_timm.encoder, "structure_of", no_network)
    kind = register_encoders()["dinov2-vit-s"]

    with pytest.raises(LookupError, match="a network was asked"):
        kind.describe(kind.Options.model_validate(options))


def test_another_timm_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polyvex_timm.encoder, "structure_of", no_network)
    monkeypatch.setattr(polyvex_timm.table, "version", lambda _: "0.0.0")
    kind = register_encoders()["dinov2-vit-s"]

    with pytest.raises(LookupError, match="a network was asked"):
        kind.describe(kind.Options())
