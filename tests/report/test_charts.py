"""Charts: small SVG in the page's colours, that says in words what it shows."""

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from polyvex.ablation.compare import Result, compare_all
from polyvex.report.charts import Score, accuracy_chart, budget_chart, load_chart, loss_chart

from .conftest import group

BLIND = Score(label="0-language", value=0.25, low=0.2, high=0.3, blind=True)
SEEN = Score(label="1-tune", value=0.75, low=0.7, high=0.8)


def result(order: str, positions: str, used: int) -> Result:
    return Result(
        label=f"order={order}, positions={positions}",
        values={"order": order.split("+"), "positions": positions},
        seeds=[0],
        questions=4,
        accuracy=0.5,
        interval=(0.4, 0.6),
        by_seed=[0.5],
        difference=None,
        difference_interval=None,
        visual_tokens=12,
        positions=used,
    )


def charts() -> dict[str, str]:
    metrics = [{"step": step, "answer_loss": 3.0 / step, "load_balance": 2.5} for step in (1, 2, 3)]
    cells = compare_all([group("a", [[1.0, 0.0]], positions=2), group("b", [[1.0, 1.0]], positions=48)])
    return {
        "accuracy": accuracy_chart([BLIND, SEEN], key="k"),
        "loss": loss_chart("1-tune", metrics, key="k", balanced=2),
        "load": load_chart("layer 0", {"text": [0.75, 0.25], "eye": [0.0, 1.0]}, key="k"),
        "budget": budget_chart(cells, key="k")[0],
    }


@pytest.fixture(scope="module", params=["accuracy", "loss", "load", "budget"])
def chart(request: pytest.FixtureRequest) -> str:
    return charts()[request.param]


def test_a_chart_is_well_formed_and_small(chart: str) -> None:
    ElementTree.fromstring(chart)
    assert len(chart) < 40_000


def test_a_chart_has_a_title_and_a_description_for_those_who_cannot_see_it(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "k-t k-d"
    assert [(child.tag, child.attrib["id"]) for child in root[:2]] == [("title", "k-t"), ("desc", "k-d")]
    assert root[0].text
    assert re.search(r"\d", root[1].text or "")


def test_a_chart_takes_the_colours_of_the_page(chart: str) -> None:
    assert "var(--muted)" in chart
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", chart)  # no stand-in is left over
    painted = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-f]{6})", chart))
    assert painted <= {"#0072b2", "#e69f00", "#ffffff", "#000000"}


def test_a_chart_keeps_its_text_as_text(chart: str) -> None:
    words = [element.text for element in ElementTree.fromstring(chart).iter() if element.tag.endswith("text")]
    assert words
    assert 'id="k-DejaVu' not in chart  # glyphs drawn as shapes would be


def test_a_chart_styles_nothing_outside_itself(chart: str) -> None:
    assert "<style" not in chart


def test_a_chart_brings_no_address_and_no_prolog(chart: str) -> None:
    assert chart.startswith("<svg ")
    assert "http" not in chart
    assert "<metadata" not in chart


def test_ids_begin_with_the_key() -> None:
    ids = re.findall(r'\bid="([^"]+)"', accuracy_chart([SEEN], key="mine"))
    assert len(ids) > 5
    assert all(name.startswith("mine-") for name in ids)


def test_the_description_has_the_figures() -> None:
    told = charts()
    assert "0-language (no images) 25.0%, 20.0% to 30.0%; 1-tune 75.0%, 70.0% to 80.0%" in told["accuracy"]
    assert "answer_loss: 3 at step 1, 1 at step 3; load_balance: 2.5 at step 1, 2.5 at step 3" in told["loss"]
    assert "text: expert 0 75%, expert 1 25%; eye: expert 0 0%, expert 1 100%" in told["load"]
    assert "positions=a: 2 positions, 50.0%, 0.0% to 100.0%" in told["budget"]


def test_a_blind_figure_is_hollow() -> None:
    shown = r'<use [^>]*style="(fill[^;]*); stroke: #0072b2'
    assert re.findall(shown, accuracy_chart([BLIND, SEEN], key="k")) == ["fill-opacity: 0", "fill: #0072b2"]


def test_a_dense_stage_has_no_balance() -> None:
    dense = loss_chart("1-tune", [{"step": 1, "answer_loss": 3.0}], key="k", balanced=0)
    assert "load balance" not in dense
    assert "load balance" in charts()["loss"]


@pytest.mark.parametrize("label", ["a<b>&c", "$x$ and $y", "a very long name of a very long stage"])
def test_any_label_can_be_drawn(label: str) -> None:
    chart = accuracy_chart([Score(label=label, value=0.5, low=0.4, high=0.6)], key="k")
    drawn = [element.text for element in ElementTree.fromstring(chart).iter() if element.tag.endswith("text")]
    assert (label if len(label) < 23 else "a very long name of a…") in drawn


def test_cells_that_differ_only_in_positions_are_one_series() -> None:
    cells = [result(order, name, used) for order in ("a+b", "b+a") for name, used in (("all", 2), ("row", 8))]
    _, legend = budget_chart(cells, key="k")
    assert legend == [("order a+b", "#0072b2"), ("order b+a", "#e69f00")]


def test_more_series_than_colours_are_drawn_as_one() -> None:
    cells = [result(f"{number}", name, used) for number in range(9) for name, used in (("all", 2), ("row", 8))]
    _, legend = budget_chart(cells, key="k")
    assert [label for label, _ in legend] == [""]


def test_many_experts_are_drawn() -> None:
    shares: dict[str, Any] = {"text": [1 / 64] * 64}
    assert "expert 63 2%" in load_chart("layer 0", shares, key="k")


def test_a_graded_ablation_is_drawn_with_its_metric_and_without_percent() -> None:
    cells = [replace(result("a+b", name, used), metric="anls", graded=True) for name, used in (("all", 2), ("row", 8))]
    chart, _ = budget_chart(cells, key="k")
    assert '<title id="k-t">anls against positions used</title>' in chart
    assert "mean anls" in chart
    assert "%" not in re.sub(r"<[^>]*>", " ", chart)
