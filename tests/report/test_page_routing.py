"""The report's section on routing: only with ``routing.json``, whole and without links; a damaged file is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from polyvex.errors import RunError
from polyvex.report import write_report
from polyvex.report.page_routing import routing_view
from polyvex.report.routing_record import read_routing

from .conftest import write_json
from .routing_example import example
from .test_page import Reader


def routed(folder: Path, **changes: Any) -> dict[str, Any]:
    found = {**example(2, 4), **changes}
    write_json(folder / "routing" / "routing.json", found)
    return found


def shown(number: int, **changes: str) -> dict[str, str]:
    one = {"sample": f"test-{number}", "question": "<script>?", "image": "x.png", "file": f"tokens-{number}.png"}
    return {**one, **changes}


def test_the_section_is_there_only_with_the_file(hand_run: Path) -> None:
    reader = Reader(write_report(hand_run).page.read_text(encoding="utf-8"))
    assert "routing" not in [attrs.get("id") for _, attrs in reader.tags]
    found = routed(hand_run, pictures=[shown(number) for number in range(9)])
    Image.new("RGB", (3000, 900), (10, 200, 30)).save(hand_run / "routing" / "tokens-0.png")
    page = write_report(hand_run).page.read_text(encoding="utf-8")
    reader = Reader(page)
    assert reader.open == []
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert "routing" in ids
    drawn = [attrs["aria-labelledby"].split("-t ")[0] for tag, attrs in reader.tags if tag == "svg"]
    names = ("load", "modality", "encoders", "pathways", "flows", "certainty")
    assert [key for key in drawn if key.startswith("routing")] == [f"routing-{name}" for name in names]
    assert "12 samples of test, tokens: 600 of text, 300 of dinov2-s, 300 of efficientnet-lite0." in reader.text
    assert " · ".join(f"{share:.1%}" for share in found["layers"][1]["load"]["all"]) in reader.text
    assert page.count('class="tokens" src="data:image/png;base64,') == 1
    assert page.count("Picture not shown: ") == 7
    assert "1 more lie beside routing.json" in reader.text
    assert page.count("<script") == 0
    addresses = [value for _, attrs in reader.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert page.count("http") == page.count("http-equiv")


def test_the_table_has_a_row_per_layer(tmp_path: Path) -> None:
    found = example(1, 4)
    layer = found["layers"][0]
    layer["load"]["all"] = [0.5, 0.25, 0.25, 0.0]
    layer["dead"] = [3]
    layer["entropy"]["all"], layer["confidence"]["all"] = 0.83, 0.61
    layer["apart"] |= {"text": 0.1, "dinov2-s": 0.125, "efficientnet-lite0": 0.25}
    view = routing_view(found, tmp_path)
    load = "50.0% · 25.0% · 25.0% · 0.0%"
    assert view["rows"] == [["0", "4, 2 a token", load, "3", "0.83", "0.61", "0.100", "0.125", "0.250"]]
    layer["dropped"]["all"] = 0.02
    view = routing_view(found, tmp_path)
    assert view["rows"][0][view["heads"].index("dropped")] == "2.0%"


def test_a_picture_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (tmp_path / "routing").mkdir()
    found = {**example(1, 2), "pictures": [shown(0, file="../secret.png")]}
    [one] = routing_view(found, tmp_path / "routing")["pictures"]
    assert one.address == ""
    assert str(tmp_path / "routing" / "secret.png") in one.gone


def test_a_damaged_file_is_named_with_all_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    found = example(2, 4)
    found["layers"][0]["load"]["text"] = [1.0]
    del found["layers"][1]["apart"]["text"]
    found["pathways"]["flows"]["all"][0].pop()
    found["pathways"]["components"]["text"][0].append(1.0)
    for text, told in (
        ("{", r"routing\.json is damaged"),
        ("{}", r"(?s)routing\.json.*run: .*split: .*samples: "),
        (json.dumps({**found, "layers": []}), r"layers: List should have at least 1 item"),
        (json.dumps({**found, "samples": "many"}), r"samples: Input should be a valid integer"),
        (
            json.dumps(found),
            r"(?s)load of layers\.0\.mlp, text: got 1 shares, expected 4.*apart of layers\.2\.mlp lacks text.*"
            r"pathways\.components\.text: got 3 values, expected 2.*pathways\.flows\.all: a table is not 4 by 4",
        ),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=told):
            read_routing(path)


@pytest.mark.parametrize("shape", [{}, {"layers": 1}, {"sources": ("text",)}])
def test_what_the_command_writes_is_read(tmp_path: Path, shape: dict[str, Any]) -> None:
    write_json(tmp_path / "routing.json", example(**shape))
    assert read_routing(tmp_path / "routing.json")["sources"][0] == "text"
