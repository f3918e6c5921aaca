"""The command that prints the path of an image."""

from pathlib import Path

import polyvex_easyvqa.dataset
import pytest
from polyvex_easyvqa.__main__ import main


@pytest.mark.parametrize(("split", "number"), [("test", 0), ("test", 999), ("train", 17)])
def test_the_path_of_an_image_is_printed(split: str, number: int, capsys: pytest.CaptureFixture[str]):
    assert main([split, str(number)]) == 0

    path = Path(capsys.readouterr().out.strip())
    assert path.is_file()
    assert path.parts[-3:] == (split, "images", f"{number}.png")


@pytest.mark.parametrize("number", [1000, -1])
def test_a_number_out_of_range_names_the_range(number: int, capsys: pytest.CaptureFixture[str]):
    assert main(["test", "--", str(number)]) == 2

    assert f"images 0 to 999 in test, not {number}" in capsys.readouterr().err


def test_missing_data_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(polyvex_easyvqa.dataset, "find_in_wheel", lambda *_: None)

    assert main(["test", "0"]) == 2

    assert "pip install --no-deps easy-vqa==1.0" in capsys.readouterr().err
