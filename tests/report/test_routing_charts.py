"""Pictures of routing: what they draw, at hand-worked places, for few and for many layers and experts."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from polyvex.report.canvas import ALONE, PAGE
from polyvex.report.routing_charts import (
    draw_routing,
    encoders_picture,
    load_picture,
    modality_picture,
    routing_pictures,
    visual_part,
)

from .routing_example import example

NAMES = ["load", "modality", "encoders", "pathways", "flows", "certainty"]
FOUND = example(2, 4)


def one_layer(text: list[float], visual: list[float], **tokens: int) -> dict[str, Any]:
    """One layer of two experts with these first choices; of the tokens, half are text."""
    found = example(1, 2, sources=("text", "eye"))
    every = [(one + two) / 2 for one, two in zip(text, visual, strict=True)]
    found["layers"][0]["first"] = {"all": every, "text": text, "visual": visual, "eye": visual}
    found["tokens"] = {"text": 10, "eye": 10, **tokens}
    return found


def drawn(svg: str, name: str) -> list[tuple[float, float]]:
    """Bottom and top of each box of a shape, in units from the top of the picture."""
    shape = re.search(rf'<g id="k-{name}">\s*<path d="([^"]+)"', svg)
    assert shape, f"nothing is called {name}"
    points = [
        [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", box)] for box in shape[1].split("z") if box.strip()
    ]
    return [(max(one), min(one)) for one in points]


def holds(svg: str, part: str) -> bool:
    """Whether a text is in a picture; pytest would take minutes to explain a failing ``in`` of so long a text."""
    return part in svg


def words(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]


def test_bars_are_as_high_as_their_shares() -> None:
    # All tokens: expert 0 has (0.2 + 0.6) / 2 = 0.4 of them, expert 1 has 0.6.
    svg = load_picture(one_layer([0.2, 0.8], [0.6, 0.4])).svg(key="k")
    [(bottom, border)], [(start, top)] = drawn(svg, "load-0"), drawn(svg, "load-1")
    assert start == border
    assert (bottom - border) / (bottom - top) == pytest.approx(0.4, abs=1e-3)


def test_each_part_is_split_by_modality_with_as_many_text_tokens_as_visual_ones() -> None:
    # Expert 0: visual 0.6 of 0.6 + 0.2 = 0.75; expert 1: visual 0.4 of 0.4 + 0.8 = 1 / 3.
    found = one_layer([0.2, 0.8], [0.6, 0.4])
    assert visual_part(found["layers"][0]) == pytest.approx([0.75, 1 / 3])
    svg = load_picture(found).svg(key="k")
    text, visual = drawn(svg, "text"), drawn(svg, "visual")
    parts = [(v[0] - v[1]) / (t[0] - v[1]) for t, v in zip(text, visual, strict=True)]
    assert parts == pytest.approx([0.75, 1 / 3], abs=1e-2)


def test_an_expert_that_nobody_chose_first_has_no_split() -> None:
    found = one_layer([1.0, 0.0], [1.0, 0.0])
    assert visual_part(found["layers"][0])[0] == 0.5
    assert np.isnan(visual_part(found["layers"][0])[1])
    assert len(drawn(load_picture(found).svg(key="k"), "text")) == 1


def test_text_and_visual_tokens_stand_side_by_side_with_lines_at_the_quarters() -> None:
    picture = modality_picture(one_layer([0.25, 0.75], [0.5, 0.5]))
    svg = picture.svg(key="k")
    for name, share in (("modality-0", 0.25), ("modality-1", 0.5)):
        [(bottom, border)], [(_, top)] = drawn(svg, f"{name}-0"), drawn(svg, f"{name}-1")
        assert (bottom - border) / (bottom - top) == pytest.approx(share, abs=1e-3)
    text, visual, *_ = picture.figure(PAGE).axes
    assert [line.get_ydata()[0] for line in text.lines] == [0.25, 0.5, 0.75]  # pyright: ignore
    assert text.get_position().y0 == pytest.approx(visual.get_position().y0)
    assert (text.get_title("left"), visual.get_title("left")) == ("text: 10 tokens", "visual: 10 tokens")


def test_each_encoder_has_a_panel_and_its_distance() -> None:
    figure = encoders_picture(FOUND).figure(PAGE)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[:2] == ["dinov2-s: 300 tokens", "efficientnet-lite0: 300 tokens"]
    lines = {index: line.get_ydata() for index, line in enumerate(figure.axes[-1].lines)}
    for index, source in enumerate(FOUND["sources"]):
        assert list(lines[index]) == [layer["apart"][source] for layer in FOUND["layers"]]


def test_a_source_without_tokens_says_so_and_draws_nothing() -> None:
    found = one_layer([1.0, 0.0], [0.0, 0.0], eye=0)
    for picture in (modality_picture(found), encoders_picture(found)):
        svg = picture.svg(key="k")
        assert "no tokens" in words(svg)
        assert not holds(svg, f"k-{picture.name}-{1 if picture.name == 'modality' else 0}-")
        assert "eye" not in [text for text in words(svg) if text == "eye"]


def test_a_run_without_encoders_says_so() -> None:
    found = example(2, 4, sources=("text",))
    assert "no visual encoder" in words(encoders_picture(found).svg(key="k"))
    assert "no tokens" in words(modality_picture(found).svg(key="k"))


def test_more_experts_than_colours_are_lines_of_a_table_and_never_two_of_one_colour() -> None:
    for experts, tabled in ((8, False), (9, True)):
        found = example(3, experts)
        svg = load_picture(found).svg(key="k")
        assert holds(svg, "<image") == tabled
        assert holds(svg, "k-load-0") != tabled
    image = load_picture(found).figure(PAGE).axes[0].images[0]
    assert image.get_array()[:, 1].tolist() == pytest.approx(found["layers"][1]["first"]["all"])  # pyright: ignore


def test_layers_may_have_different_numbers_of_experts() -> None:
    found = example(3, [2, 12, 4])
    table = load_picture(found).figure(PAGE).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(table).sum(0).tolist() == [10, 0, 8]  # pyright: ignore
    assert all(picture.svg(key="k") for picture in routing_pictures(example(3, [2, 8, 4])))


@pytest.fixture(scope="module", params=[(1, 4), (80, 64)], ids=["one", "many"])
def pictures(request: pytest.FixtureRequest) -> dict[str, str]:
    return {one.name: one.svg(key="k") for one in routing_pictures(example(*request.param, tokens=40))}


def test_every_picture_is_small_well_formed_and_told_in_words(pictures: dict[str, str]) -> None:
    assert list(pictures) == NAMES
    for svg in pictures.values():
        root = ElementTree.fromstring(svg)
        assert [child.tag for child in root[:2]] == ["title", "desc"]
        assert root[0].text
        assert root[1].text
        assert len(svg) < 400_000
        assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", svg)
        assert not holds(svg, "http")
        assert all(inner.startswith(("#k-", "data:image/png")) for inner in re.findall(r'href="([^"]+)"', svg))


def test_words_say_the_figures() -> None:
    about = load_picture(one_layer([0.2, 0.8], [0.6, 0.4])).about
    assert about == "layer 0: expert 0 40.0% (visual 75%), expert 1 60.0% (visual 33%)"


def test_names_are_drawn_as_they_are() -> None:
    evil = "<b>&$x$ $y$"
    found = example(2, 4, sources=("text", evil))
    svg = encoders_picture(found).svg(key="k")
    assert not holds(svg, "<b>")
    assert any(text.startswith(f"{evil}: 300") for text in words(svg))
    assert evil in words(svg)  # in the legend as well


def test_files_stand_alone_on_white_ground(tmp_path: Path) -> None:
    draw_routing(FOUND, tmp_path, png=True)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}{end}" for name in NAMES for end in (".svg", ".png")}
    text = (tmp_path / "load.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {"width", "height", "viewBox"} <= set(root.attrib)
    assert not holds(text, "var(")
    assert "Expert load: first choices of all tokens" in words(text)
    assert holds(text, ALONE.ground)
    assert Image.open(tmp_path / "flows.png").convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_png_is_written_only_if_asked(tmp_path: Path) -> None:
    draw_routing(example(1, 2), tmp_path, png=False)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.svg" for name in NAMES}
