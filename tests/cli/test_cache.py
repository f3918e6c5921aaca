"""``polyvex cache``: a recipe or a command, and what each prints."""

import json
from pathlib import Path

import pytest

from polyvex.cli import run as polyvex

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def filled(tiny_recipe_file: Path, capsys: Capture) -> Path:
    assert polyvex(["cache", str(tiny_recipe_file), "--quiet"]) == 0
    assert "patchify: 0 images found in the cache, 24 encoded" in capsys.readouterr().out
    return tiny_recipe_file


def test_a_recipe_needs_no_command_and_options_may_come_first(filled: Path, capsys: Capture) -> None:
    for arguments in ([str(filled), "--quiet"], ["--quiet", str(filled)], ["fill", str(filled), "--quiet"]):
        assert polyvex(["cache", *arguments]) == 0
        assert "patchify: 24 images found in the cache, reused" in capsys.readouterr().out
    assert polyvex(["cache", "--quiet", str(filled), "--refresh"]) == 0
    assert "24 encoded" in capsys.readouterr().out


def test_a_recipe_with_the_name_of_a_command(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    filled.rename("verify")
    assert polyvex(["cache", "./verify", "--quiet"]) == 0
    assert "reused" in capsys.readouterr().out
    assert polyvex(["cache", "verify"]) == 0
    assert "nothing is left over" in capsys.readouterr().out


def test_info_verify_and_prune_print_tables_and_json(filled: Path, cache_folder: Path, capsys: Capture) -> None:
    assert polyvex(["cache", "info"]) == 0
    assert "MiB in 2 stores" in capsys.readouterr().out
    assert polyvex(["cache", "info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["encoder"]: row["images"] for row in report["stores"]} == {"patchify": 24, "color-grid": 24}
    assert report["bytes"] == sum(row["bytes"] for row in report["stores"])

    shard = next(cache_folder.glob("patchify-*/*.safetensors"))
    (shard.parent / "orphan.safetensors").write_bytes(b"x" * 2**20)
    assert polyvex(["cache", "verify"]) == 0
    assert "orphan" in capsys.readouterr().out
    assert polyvex(["cache", "prune", "--dry-run"]) == 0
    assert "1.0 MiB would be freed" in capsys.readouterr().out
    assert polyvex(["cache", "prune"]) == 0
    assert "1.0 MiB freed" in capsys.readouterr().out

    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    assert polyvex(["cache", "verify", "--json"]) == 1
    assert [one["kind"] for one in json.loads(capsys.readouterr().out)["findings"]] == ["damaged"]
    assert polyvex(["cache", "prune", "--damaged"]) == 0
    assert polyvex(["cache", "verify", "--cache", str(cache_folder)]) == 0
    assert polyvex(["cache", "info", "--cache", str(cache_folder / "none"), "--json"]) == 0


def test_help_shows_the_commands(capsys: Capture) -> None:
    assert polyvex(["cache", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("fill", "info", "verify", "prune", "RECIPE"))
