"""``polyvex export``, on a run that was trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyvex.cli import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tiny_tables: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe, whose language model has experts in the first of two layers."""
    folder = tmp_path_factory.mktemp("trained")
    tables = {**tiny_tables(), "evaluation": {"after": "never"}}
    (folder / "tiny.toml").write_text(tomlkit.dumps(tables), encoding="utf-8")
    out = str(folder / "run")
    assert run(["train", str(folder / "tiny.toml"), "--out", out, "--cache", str(folder / "cache"), "--quiet"]) == 0
    return folder / "run"


def test_a_run_is_exported(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert run(["export", str(trained), "--to", "mixtral", "--out", str(out), "--copy-dense", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["family"], told["out"]) == ("mixtral", str(out))
    assert 0 <= told["difference"] <= 1e-5 * told["scale"]
    assert AutoModelForCausalLM.from_pretrained(out).config.num_local_experts == 4
    assert AutoTokenizer.from_pretrained(out).eos_token == "</s>"
    assert captured.err == ""


def test_what_is_said(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["export", str(trained), "--to", "mixtral", "--out", str(tmp_path / "out"), "--copy-dense"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"exported the language model of {trained} as mixtral: {tmp_path / 'out'} (")
    assert lines[1].startswith("loaded back with transformers: logits differ by at most ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "mixtral"], "cannot be exported as mixtral: 1 reason\n  - layer 1: no experts"),
        (["--to", "qwen3_moe"], "the language model is LlamaForCausalLM; qwen3_moe computes"),
        (["--to", "qwen"], "unknown family 'qwen'"),
    ],
)
def test_a_refusal_leaves_with_2_and_nothing_written(
    arguments: list[str], said: str, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["export", str(trained), "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []
