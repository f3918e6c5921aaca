"""Pathways and flows: lines at the numbers they stand for, as wide as their shares."""

import re
from typing import Any

import pytest

from polyvex.report.routing_paths import MOST, flows_picture, pathways_picture

from .routing_example import example
from .test_routing_charts import holds, words


def two_layers() -> dict[str, Any]:
    """Two layers of two experts: 3/4 of the tokens go 0-0, 1/4 go 1-0."""
    found = example(2, 2)
    ways = found["pathways"]
    ways["flows"] = {key: [[[0.75, 0.0], [0.25, 0.0]]] for key in ("all", "text", "visual")}
    paths = [{"path": [0, 0], "share": 0.75}, {"path": [1, 0], "share": 0.25}]
    ways["common"] = dict.fromkeys(("all", "text", "visual"), paths)
    ways["components"] = {key: [[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]] for key in ("all", "text", "visual")}
    return found


def points(svg: str, name: str) -> list[tuple[float, float]]:
    """First and last point of a line, in units."""
    line = re.search(rf'<g id="k-{name}">\s*<path d="([^"]+)"', svg)
    assert line, f"nothing is called {name}"
    numbers = [float(one) for one in re.findall(r"[-\d.]+", line[1])]
    return [(numbers[0], numbers[1]), (numbers[-2], numbers[-1])]


def test_flows_are_as_wide_as_their_shares() -> None:
    svg = flows_picture(two_layers()).svg(key="k")
    found = {float(one): two for one, two in re.findall(r'id="k-all-flow-([\d.]+)">\s*<path d="([^"]+)"', svg)}
    wide, narrow = max(found), min(found)
    assert len(found) == 2  # nothing is drawn for the shares of 0
    assert wide / narrow == pytest.approx(3, rel=0.1)
    assert holds(svg, f"stroke-width: {wide:g}")


def test_flows_begin_and_end_at_their_experts() -> None:
    svg = flows_picture(two_layers()).svg(key="k")
    (wide, _), (narrow, _) = sorted(
        ((one, float(one)) for one in re.findall(r"k-all-flow-([\d.]+)", svg)), key=lambda pair: -pair[1]
    )
    level, rising = points(svg, f"all-flow-{wide}"), points(svg, f"all-flow-{narrow}")
    assert level[0][1] == level[1][1] == rising[1][1]
    assert rising[0][1] < rising[1][1]  # expert 1 is above expert 0
    assert level[0][0] == rising[0][0] < level[1][0] == rising[1][0]


def test_the_most_common_paths_have_their_share_in_words() -> None:
    picture = flows_picture(two_layers())
    assert "75.0% on the first path" in words(picture.svg(key="k"))
    assert "grey: all steps" in words(picture.svg(key="k"))
    assert picture.about.startswith(
        "all tokens, first path 0-0: 75.0%; all tokens, second path 1-0: 25.0%; text tokens"
    )


def test_what_is_too_much_to_draw_is_told() -> None:
    found = example(30, 16, tokens=800)
    assert MOST < 29 * 16 * 16
    said = [text for text in words(flows_picture(found).svg(key="k")) if text.startswith("grey")]
    assert said[0] != "grey: all steps"
    assert 0 < int(re.findall(r"(\d+)%", said[0])[0]) < 100


def test_components_stand_at_their_values_with_first_and_second_bold() -> None:
    svg = pathways_picture(two_layers()).svg(key="k")
    first, second, other = (points(svg, f"all-{name}") for name in ("first", "second", "others"))
    assert first[1][1] == second[0][1] == second[1][1]  # 1
    assert first[0][1] == other[1][1]  # 0
    assert other[0][1] == pytest.approx((first[0][1] + first[1][1]) / 2, abs=0.02)  # 0.5
    assert re.search(r'id="k-all-first">\s*<path [^>]*stroke-width: 2.8', svg)
    assert re.search(r'id="k-all-others">\s*<path [^>]*stroke-width: 0.8', svg)


@pytest.mark.parametrize("make", [pathways_picture, flows_picture])
def test_one_moe_layer_has_no_way(make: Any) -> None:
    picture = make(example(1, 4))
    assert "one MoE layer: tokens go nowhere from it" in words(picture.svg(key="k"))


@pytest.mark.parametrize("make", [pathways_picture, flows_picture])
def test_a_kind_without_tokens_says_so(make: Any) -> None:
    svg = make(example(3, 4, sources=("text",))).svg(key="k")
    assert words(svg).count("no tokens") == 1
    assert not holds(svg, "k-visual-first")
    assert holds(svg, "k-text-first")


def test_a_path_of_a_single_token_is_not_common() -> None:
    found = two_layers()
    found["tokens"] = {"text": 4, "eye": 4}  # 0.25 of the 4 text tokens is one, of all 8 tokens it is two
    svg = flows_picture(found).svg(key="k")
    assert holds(svg, "k-all-second")
    assert not holds(svg, "k-text-second")
    found["pathways"]["common"]["text"] = [{"path": [0, 0], "share": 0.25}]
    assert any("no path was taken twice" in text for text in words(flows_picture(found).svg(key="k")))
