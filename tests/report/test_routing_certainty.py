"""Certainty: a line per source at its values, and dead experts marked."""

from polyvex.report.canvas import PAGE
from polyvex.report.routing_certainty import certainty_picture

from .routing_example import example
from .test_routing_charts import drawn, words


def test_lines_stand_at_the_values_of_each_source() -> None:
    found = example(2, 4)
    figure = certainty_picture(found).figure(PAGE)
    for axes, measure in zip(figure.axes, ("entropy", "confidence"), strict=False):
        keys = [*found["sources"], "all"]
        wanted = [[layer[measure][key] for layer in found["layers"]] for key in keys]
        assert [list(line.get_ydata()) for line in axes.lines] == wanted  # pyright: ignore


def test_dead_experts_are_marked() -> None:
    found = example(3, 4)
    for layer, dead in zip(found["layers"], ([], [2], [0, 3]), strict=True):
        layer["dead"] = dead
    picture = certainty_picture(found)
    svg = picture.svg(key="k")
    one, two = (bottom - top for bottom, top in drawn(svg, "dead"))
    assert abs(two / one - 2) < 0.02
    assert "expert 2" in words(svg)
    assert "dead experts 0, 3" in picture.about


def test_without_dead_experts_it_says_none() -> None:
    found = example(1, 2)
    found["layers"][0]["dead"] = []
    assert "none" in words(certainty_picture(found).svg(key="k"))


def test_a_source_without_tokens_has_no_line() -> None:
    found = example(2, 4)
    found["tokens"]["dinov2-s"] = 0
    assert "dinov2-s" not in words(certainty_picture(found).svg(key="k"))
