"""``polyvex positions`` and ``polyvex positions show``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polyvex.cli.app import app

runner = CliRunner()


def ask(*arguments: str) -> str:
    result = runner.invoke(app, ["positions", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_without_a_command_schemes_are_listed() -> None:
    assert "share_row  one position per row" in ask()
    assert {row["name"] for row in json.loads(ask("--json"))} >= {"stride", "interpolate"}


def test_each_place_has_the_sign_of_its_position(tiny_recipe_file: Path) -> None:
    text = ask("show", str(tiny_recipe_file))
    assert "patchify\n  00\n  11\n" in text
    assert "color-grid\n  2222\n  3333\n" in text
    assert "together 12 tokens; text behind the image goes on 4 positions further" in text


def test_it_is_drawn_on_request(tiny_recipe_file: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "new" / "a.png", tmp_path / "new" / "a.svg"]
    text = ask("show", str(tiny_recipe_file), "-o", str(paths[0]), "-o", str(paths[1]))
    assert all(path.stat().st_size > 1000 for path in paths)
    assert f"drawn: {paths[0]}" in text


def test_as_json(tiny_recipe_file: Path) -> None:
    found = json.loads(ask("show", str(tiny_recipe_file), "--set", "positions.use=share_all", "--json"))
    assert found["takes"] == 2
    assert [share["positions"] for share in found["encoders"]] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "3"], "expected width and height such as 640x480"),
        (["--size", "0x5"], "expected width and height such as 640x480"),
        (["-o", "a.jpg"], "expected .png or .svg"),
    ],
)
def test_bad_values_are_told(arguments: list[str], message: str, tiny_recipe_file: Path) -> None:
    result = runner.invoke(app, ["positions", "show", str(tiny_recipe_file), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
