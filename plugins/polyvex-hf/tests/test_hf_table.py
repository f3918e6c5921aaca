"""The table of structures holds what the networks give, and is used for nothing else."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import polyvex_hf.encoder
import polyvex_hf.table
import pytest
import transformers as hf
from polyvex_hf import HfEncoder
from polyvex_hf.named import CHECKPOINTS, named_encoders, named_options
from polyvex_hf.table import FILE, known_structure, write_table

AGAIN = "transformers or the named checkpoints changed; write the table anew: python -m polyvex_hf"
NAMED = named_encoders()


def no_network(*_: Any) -> Any:
    raise LookupError("a network was asked")


def test_every_row_is_what_its_network_gives() -> None:
    shipped = json.loads(files("polyvex_hf").joinpath(FILE).read_text(encoding="utf-8"))
    networks = json.loads(write_table(named_options()))

    assert shipped["transformers"] == networks["transformers"], AGAIN
    assert sorted(shipped["structures"]) == sorted(networks["structures"]), AGAIN
    for checkpoint, row in networks["structures"].items():
        assert shipped["structures"][checkpoint] == row, AGAIN


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_named_ones_are_described_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polyvex_hf.encoder, "structure_of", no_network)
    kind = NAMED[name]
    options = dict(zip(CHECKPOINTS, named_options(), strict=True))[name]

    facts = kind.describe(kind.Options())

    assert facts == HfEncoder.describe(options)
    assert facts.parameters == known_structure(*options.asked()).parameters  # type: ignore[union-attr]


def test_named_ones_are_described_without_transformers() -> None:
    """Importing it takes longer than all the rest of a listing."""
    told = "import sys; from polyvex_hf.named import named_encoders\n"
    told += "for kind in named_encoders().values(): kind.describe(kind.Options()); kind.weights(kind.Options())\n"
    told += "print([name for name in sys.modules if name == 'transformers'])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("options", [{"image_size": 224}, {"layers": -1}, {"layers": [-2, -2]}, {"norm": True}])
def test_other_options_ask_the_network(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polyvex_hf.encoder, "structure_of", no_network)
    kind = NAMED["clip-l-336"]

    with pytest.raises(LookupError, match="a network was asked"):
        kind.describe(kind.Options.model_validate(options))


def test_another_transformers_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polyvex_hf.encoder, "structure_of", no_network)
    monkeypatch.setattr(polyvex_hf.table, "version", lambda _: "0.0.0")
    kind = NAMED["clip-l-336"]

    with pytest.raises(LookupError, match="a network was asked"):
        kind.describe(kind.Options())


def test_a_directory_of_a_known_name_is_asked_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = hf.ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)
    config.save_pretrained("facebook/vit-mae-huge")
    kind = NAMED["hf-mae-huge"]

    assert kind.describe(kind.Options()).shape.dim == 32
