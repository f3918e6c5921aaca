"""The command line: exit codes, listings as JSON, and mistakes without a traceback."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from polyvex.cli import run

Capture = pytest.CaptureFixture[str]


LISTINGS = (
    *("encoders", "fusions", "positions", "routers", "language-models", "datasets", "metrics"),
    *("plugins list", "plugins doctor"),
)


@pytest.mark.parametrize("listing", LISTINGS)
def test_listings_are_json_too(listing: str, capsys: Capture) -> None:
    assert run([*listing.split(), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(isinstance(row, dict) for row in rows)


def test_encoders_tell_facts_and_weights(capsys: Capture) -> None:
    run(["encoders", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    dino = rows["dinov2-s"]
    assert (dino["tokens"], dino["grid"], dino["width"], dino["image"]) == (256, "16x16", 384, "224x224 px")
    assert dino["license"].startswith("MIT")
    assert dino["weights"].endswith(".onnx")
    assert {option["name"] for option in dino["options"]} >= {"image_size", "layer"}


def test_positions_have_one_line_each(capsys: Capture) -> None:
    assert run(["positions"]) == 0
    out = capsys.readouterr().out
    for name in ("sequential", "share_all", "share_row", "share_row_col"):
        assert f"{name}  " in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nowhere.toml"], "no recipe at nowhere.toml. Write one with: polyvex compose"),
        (["ask", "nowhere", "a.png", "why?"], "no run at nowhere"),
        (["eval", "nowhere"], "no run at nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["train"], "Missing argument"),
        (["compose", "--encoder", "dinov2s"], "unknown encoder 'dinov2s'. Did you mean 'dinov2-s'"),
        (["compose"], "no --encoder given"),
        (["compose", "--encoder", "patchify", "--lm", "smal-llama"], "unknown language model 'smal-llama'. Did you"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_mistake_leaves_with_2_and_a_sentence(arguments: list[str], said: str, capsys: Capture) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_a_composed_recipe_is_complete_and_can_be_read(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "my.toml"
    arguments = ["--encoder", "patchify", "--encoder", "color-grid", "--moe", "sparse", "--data", str(tmp_path)]
    assert run(["compose", *arguments, "--positions", "share_row", "-o", str(path)]) == 0
    text = path.read_text()
    assert "# How many neighbours along a row become one token" in text
    capsys.readouterr()
    assert run(["show", str(path), "--json", "--set", "stages.align.steps=30"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [table["use"] for table in shown["encoders"]] == ["patchify", "color-grid"]
    assert next(stage for stage in shown["stages"] if stage["name"] == "align")["steps"] == 30
    assert run(["compose", *arguments, "-o", str(path)]) == 2
    assert "--force" in capsys.readouterr().err


def test_the_schema_covers_plugins(capsys: Capture) -> None:
    assert run(["schema"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["title"] == "polyvex recipe"
    assert '"dinov2-s"' in text


def test_the_story_of_a_run(tiny_recipe_file: Path, tmp_path: Path, capsys: Capture) -> None:
    recipe = str(tiny_recipe_file)
    out, cache = str(tmp_path / "run"), ["--cache", str(tmp_path / "cache")]
    assert run(["plan", recipe, *cache]) == 0
    assert "no problem found" in capsys.readouterr().out
    assert run(["cache", recipe, *cache, "--quiet"]) == 0
    assert "encoded" in capsys.readouterr().out
    assert run(["cache", recipe, *cache, "--quiet"]) == 0
    assert "reused" in capsys.readouterr().out
    assert run(["train", recipe, "--out", out, *cache, "--quiet"]) == 0
    assert "starts from RANDOM weights" in capsys.readouterr().out
    assert run(["train", recipe, "--out", out, *cache, "--quiet", "--set", "seed=5"]) == 2
    assert "seed: 0 there, 5 here" in capsys.readouterr().err
    assert run(["eval", out, *cache, "--quiet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["questions"] > 0
    image = _first_image(Path(out))
    assert run(["ask", out, image, "which color?", "--json"]) == 0
    assert "answer" in json.loads(capsys.readouterr().out)
    assert run(["ask", out, recipe, "which color?"]) == 2
    assert f"cannot read the image {recipe}" in capsys.readouterr().err
    assert run(["report", out]) == 0
    assert (Path(out) / "report.html").exists()


def _first_image(out: Path) -> str:
    answers: Any = next((out / "evaluation").glob("*.jsonl")).read_text().splitlines()
    return next(path for line in answers for path in json.loads(line)["images"])


def test_debug_shows_the_traceback() -> None:
    from polyvex.errors import RecipeError

    with pytest.raises(RecipeError):
        run(["show", "nowhere.toml", "--debug"])


def test_help_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from polyvex.cli import run; code = run(['--help']); "
        "heavy = {'torch', 'transformers', 'timm', 'pydantic'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "compose" in done.stdout


def test_compose_makes_the_folder_and_names_the_file(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "new" / "x.toml"
    assert run(["compose", "--encoder", "patchify", "-o", str(file)]) == 0
    assert f"polyvex plan {file}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments", [["train", "{recipe}", "--out", "{recipe}"], ["cache", "{recipe}", "--cache", "{recipe}"]]
)
def test_a_file_where_a_folder_is_wanted_is_wrong_input(
    arguments: list[str], tiny_recipe_file: Path, capsys: Capture
) -> None:
    assert run([word.format(recipe=tiny_recipe_file) for word in arguments]) == 2
    said = capsys.readouterr().err
    assert str(tiny_recipe_file) in said
    assert "Traceback" not in said


def test_ctrl_c_is_told_and_leaves_with_1(
    tiny_recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from polyvex.cache import encode

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "load_encoder", interrupt)
    assert run(["cache", str(tiny_recipe_file), "--quiet"]) == 1
    assert "stopped. What was finished is kept" in capsys.readouterr().err


def test_broken_plugins_are_told_by_every_command_beside_its_output(
    tiny_recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("POLYVEX_DISABLE_PLUGINS", "basic")
    assert run(["show", str(tiny_recipe_file), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["name"] == "tiny"
    assert "UNKNOWN plugin basic" in captured.err
    assert "Did you mean 'basics'?" in captured.err
