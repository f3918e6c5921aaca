"""``polyvex routing``, on runs that were trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from polyvex.cli import run

Capture = pytest.CaptureFixture[str]
CHARTS = {"load", "modality", "encoders", "pathways", "flows", "certainty"}


def trained(tables: dict[str, Any], folder: Path) -> Path:
    """A run of the tiny recipe with these tables."""
    whole = {key: value for key, value in tables.items() if value is not None}
    (folder / "tiny.toml").write_text(tomlkit.dumps({**whole, "evaluation": {"after": "never"}}), encoding="utf-8")
    out = str(folder / "run")
    assert run(["train", str(folder / "tiny.toml"), "--out", out, "--cache", str(folder / "cache"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def sparse(tiny_tables: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = tiny_tables()
    tables["moe"]["layers"] = "dense"
    return trained(tables, tmp_path_factory.mktemp("sparse"))


def asked(sparse: Path, *arguments: str) -> list[str]:
    return ["routing", str(sparse), "--cache", str(sparse.parent / "cache"), "--quiet", *arguments]


def test_everything_is_written_into_the_run(sparse: Path, capsys: Capture) -> None:
    assert run(asked(sparse, "--png", "--pictures", "2")) == 0
    folder, said = sparse / "routing", capsys.readouterr().out
    table = json.loads((folder / "routing.json").read_text(encoding="utf-8"))
    assert table["samples"] == 12
    assert table["sources"] == ["text", "patchify", "color-grid"]
    assert table["tokens"]["patchify"] == 12 * 4
    assert [layer["layer"] for layer in table["layers"]] == [0, 1]
    assert {path.stem for path in folder.glob("*.svg")} == CHARTS
    assert {path.stem for path in folder.glob("*.png")} == CHARTS | {"tokens-0", "tokens-1"}
    assert [picture["file"] for picture in table["pictures"]] == ["tokens-0.png", "tokens-1.png"]
    assert table["pictures"][0]["image"] != table["pictures"][1]["image"]
    grid = table["pictures"][0]["views"][0]["experts"]["0"]
    assert [len(row) for row in grid] == [2, 2]
    assert all(0 <= expert < 4 for row in grid for expert in row)
    assert "layer   1: load " in said
    assert "most common path: " in said


def test_the_report_shows_it(sparse: Path, capsys: Capture) -> None:
    assert run(asked(sparse)) == 0
    assert run(["report", str(sparse)]) == 0
    page = next((sparse / "report").glob("*.html")) if (sparse / "report").is_dir() else sparse / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "Routing" in text
    assert "data:image/png;base64," in text
    capsys.readouterr()


def test_json_is_what_is_written(sparse: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(asked(sparse, "--json", "--limit", "3", "--pictures", "0", "--out", str(tmp_path / "here"))) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told == json.loads((tmp_path / "here" / "routing.json").read_text(encoding="utf-8"))
    assert (told["samples"], told["pictures"]) == (3, [])
    assert captured.err == ""


def test_pictures_of_an_earlier_call_do_not_stay(sparse: Path, tmp_path: Path, capsys: Capture) -> None:
    out = ("--out", str(tmp_path / "here"))
    assert run(asked(sparse, *out, "--pictures", "3")) == 0
    assert run(asked(sparse, *out, "--pictures", "1")) == 0
    assert sorted(path.name for path in (tmp_path / "here").glob("tokens-*")) == ["tokens-0.png"]
    capsys.readouterr()


def test_other_files_in_the_folder_stay(sparse: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("tokens-mine.png", "holiday.png"):
        (folder / name).write_bytes(b"mine")
    out = ("--out", str(folder))
    assert run(asked(sparse, *out, "--png")) == 0
    assert run(asked(sparse, *out)) == 0
    assert not (folder / "load.png").exists()
    said = capsys.readouterr().out
    assert "holiday" not in said
    assert (folder / "tokens-mine.png").read_bytes() == (folder / "holiday.png").read_bytes() == b"mine"


def test_other_data_can_be_shown(sparse: Path, tiny_data: Path, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_data, other)
    lines = (other / "test.jsonl").read_text(encoding="utf-8").splitlines()[:5]
    (other / "few.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    out = ("--out", str(tmp_path / "here"), "--json")
    assert run(asked(sparse, "--set", f"data.folder={other}", "--split", "few", *out)) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["samples"], told["split"]) == (5, "few")
    assert told["pictures"][0]["image"].startswith(str(other))
    assert captured.err == ""
    assert run(asked(sparse, "--set", "moe.num_experts=2")) == 2
    assert "moe.num_experts=2: a finished run can only be shown other data" in capsys.readouterr().err


def test_mistakes_are_told(sparse: Path, tiny_tables: Any, tmp_path: Path, capsys: Capture) -> None:
    assert run(asked(sparse, "--split", "nothing")) == 2
    assert "nothing" in capsys.readouterr().err
    assert run(["routing", str(tmp_path / "none")]) == 2
    assert "no run at" in capsys.readouterr().err
    tables = {**tiny_tables(), "moe": None}
    tables["stages"] = tables["stages"][:1]
    assert run(asked(trained(tables, tmp_path))) == 2
    err = capsys.readouterr().err
    assert "the language model is dense and has no routers" in err
    assert "Traceback" not in err
