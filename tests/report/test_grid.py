"""The report of an ablation: page, CSV, Markdown, and what they say in words."""

import csv
import json
from pathlib import Path

import pytest

from polyvex.ablation.compare import RESAMPLES, compare_all
from polyvex.errors import RunError
from polyvex.report import write_report
from polyvex.report.grid import ONE_SEED, verdict

from .conftest import group, write_ablation
from .test_page import Reader, change_json

# Question by question: b is right wherever a is, and on three more of eight; c is as a, but for two that swap.
A = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
B = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
C = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three cells of two seeds; the second seed of each answers as the first."""
    cells = [group("a", [A, A], positions=48), group("b", [B, B], positions=8), group("c", [C, C], positions=2)]
    return write_ablation(tmp_path / "grid", cells)


def text_of(folder: Path) -> str:
    return Reader(write_report(folder).page.read_text(encoding="utf-8")).text


def test_the_csv_can_be_read_by_a_program(grid: Path) -> None:
    written = write_report(grid)
    assert [path.name for path in written.paths] == ["report.html", "results.csv", "results.md"]
    with (grid / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["cell"] for row in rows] == ["positions=a", "positions=b", "positions=c"]
    assert [row["positions"] for row in rows] == ["a", "b", "c"]
    assert [int(row["positions_used"]) for row in rows] == [48, 8, 2]
    assert [float(row["accuracy"]) for row in rows] == [2 / 8, 7 / 8, 2 / 8]
    assert [row["difference"] for row in rows] == ["", "0.625", "0.0"]
    assert float(rows[1]["difference_low"]) > 0
    assert float(rows[2]["difference_low"]) < 0 < float(rows[2]["difference_high"])
    assert json.loads(rows[1]["by_seed"]) == [7 / 8, 7 / 8]
    assert json.loads(rows[1]["seeds"]) == [0, 1]
    assert int(rows[1]["questions"]) == 8


def test_lists_and_commas_in_values_survive_the_csv(tmp_path: Path) -> None:
    one = {**group("a", [A]), "values": {"order": ["x", "y"], "lm.name": 'a, "b"'}, "label": "order=x+y, …"}
    folder = write_ablation(tmp_path / "grid", [{**one, "values": {**one["values"], "positions": "a"}}])
    write_report(folder)
    with (folder / "results.csv").open(newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert (row["order"], row["lm.name"], row["cell"]) == ("x+y", 'a, "b"', "order=x+y, …")


def test_the_markdown_is_a_table_with_its_method(grid: Path) -> None:
    write_report(grid)
    lines = (grid / "results.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| cell | tokens | positions | seeds | questions | accuracy |")
    assert lines[2].startswith("| positions=a | 12 | 48 | 2 | 8 | 25.00% |")
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert "bootstrap over questions" in lines[-1]


def test_a_bar_in_a_label_does_not_break_the_markdown(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [{**group("a", [A, A]), "label": "x|y"}])
    write_report(folder)
    assert "| x\\|y | 12 |" in (folder / "results.md").read_text(encoding="utf-8")


def test_hostile_values_stay_text_in_csv_and_markdown(tmp_path: Path) -> None:
    attack = "=HYPERLINK(1)|[x](http://y)<img src=x>\x1b[2J\nz"
    folder = write_ablation(
        tmp_path / "grid", [{**group("a", [A, A]), "label": attack, "values": {"positions": "a", "=axis": attack}}]
    )
    write_report(folder)
    with (folder / "results.csv").open(newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert row["'=axis"].startswith("'=HYPERLINK")
    assert row["cell"].startswith("'=HYPERLINK")
    table = next(line for line in (folder / "results.md").read_text("utf-8").splitlines() if "HYPERLINK" in line)
    assert r"=HYPERLINK(1)\|\[x\](http\://y)\<img src=x\>\\x1b\[2J z" in table
    assert "\x1b" not in table


def test_the_page_has_the_table_the_method_and_each_seed(grid: Path) -> None:
    text = text_of(grid)
    assert "polyvex ablation tiny 6 cells: positions (a, b, c)" in text
    places = [text.index(f" {name} {share} ") for name, share in (("a", "25.0%"), ("b", "87.5%"), ("c", "25.0%"))]
    assert places == sorted(places)
    assert "48 25.0%, 25.0% seeds 0, 1" in text  # positions used, by seed
    assert "All cells: 12 tokens, 8 questions." in text
    assert "87.5%, 87.5% seeds 0, 1" in text
    assert "+62.5%" in text
    assert f"bootstrap over questions ({RESAMPLES:,} resamples)" in text
    assert "they do not cover which seeds were trained" in text
    assert "Differences are to the first cell: positions=a." in text
    assert "Read this first" not in text


def test_a_difference_that_was_shown_is_named(grid: Path) -> None:
    sentence = "1 of 2 cells differs from the first (positions=a) by an interval without 0: positions=b higher."
    assert sentence in text_of(grid)
    assert sentence in str(write_report(grid))
    assert "about 1 comparison in 20 does so by chance" in text_of(grid)


def test_when_no_difference_was_shown_it_says_so(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [group("a", [A, A]), group("c", [C, C])])
    for text in (text_of(folder), str(write_report(folder)), (folder / "results.md").read_text(encoding="utf-8")):
        assert "No difference was shown: every interval of a difference to the first cell (positions=a)" in text
        assert "it may be smaller than 8 questions can tell" in text


def test_lower_is_lower_and_one_cell_compares_with_nothing() -> None:
    assert "positions=a lower" in verdict(compare_all([group("b", [B]), group("a", [A])]))
    assert verdict(compare_all([group("a", [A])])).startswith("Nothing to compare")
    assert verdict([]).startswith("Nothing to compare")


def test_equal_answers_are_no_difference() -> None:
    assert verdict(compare_all([group("a", [A]), group("b", [A])])).startswith("No difference was shown")


def test_one_seed_is_a_warning(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [group("a", [A]), group("b", [B])])
    written = write_report(folder)
    assert written.loud == ["one seed: differences between cells also contain the luck of one training"]
    assert ONE_SEED in text_of(folder)
    assert f"**{ONE_SEED}**" in (folder / "results.md").read_text(encoding="utf-8")
    assert str(written).startswith(f"! {ONE_SEED}")


def test_a_failed_cell_is_loud_and_shows_its_traceback(tmp_path: Path) -> None:
    folder = write_ablation(
        tmp_path / "grid", [group("a", [A, A]), group("b", [B])], {"positions=b, seed 1": "ValueError: no <b>"}
    )
    index = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    index["cells"].append({"id": "b-1", "label": "positions=b", "seed": 1, "values": {"positions": "b"}})
    (folder / "ablation.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "cells" / "b-1").mkdir()
    (folder / "cells" / "b-1" / "failed.txt").write_text("Traceback: line 7 of <b>", encoding="utf-8")
    written = write_report(folder)
    page = written.page.read_text(encoding="utf-8")
    assert "FAILED: positions=b, seed 1: ValueError: no <b>" in written.loud
    assert "cells have different seeds; each difference uses only the seeds that both cells have" in written.loud
    assert "Read this first FAILED: positions=b, seed 1: ValueError: no <b>" in Reader(page).text
    assert "Traceback: line 7 of &lt;b&gt;" in page
    assert "<b>" not in page


def test_when_the_first_cell_failed_it_says_what_the_others_are_compared_with(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [group("a", [[], []]), group("b", [B, B]), group("c", [C, C])])
    assert write_report(folder).loud == [
        "the first cell of the plan (positions=a) has no result, so differences are to positions=b"
    ]


def test_when_every_cell_failed_there_is_still_a_report(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [group("a", [[]])], {"positions=a, seed 0": "KeyError: 1"})
    written = write_report(folder)
    assert written.loud == ["FAILED: positions=a, seed 0: KeyError: 1"]
    assert (folder / "results.csv").read_text(encoding="utf-8").startswith("cell,metric,visual_tokens,")
    assert "Nothing to compare" in Reader(written.page.read_text(encoding="utf-8")).text


def test_cells_of_another_plan_are_counted(grid: Path) -> None:
    stranger = grid / "cells" / "zz"
    stranger.mkdir()
    record = {"id": "zz", "label": "old", "seed": 0, "accuracy": 0.1}
    (stranger / "result.json").write_text(json.dumps(record), encoding="utf-8")
    assert write_report(grid).loud == ["1 finished cells in this folder belong to another plan and are left out"]


def test_a_grid_that_was_interrupted_shows_what_is_finished(grid: Path) -> None:
    (grid / "ablation.json").unlink()
    (grid / "cells" / "c-1" / "result.json").unlink()
    written = write_report(grid)
    assert written.loud == [
        "UNFINISHED: ablation.json: the grid has not run to its end (6 cells begun, 5 of them finished), so nothing is "
        "compared yet",
        f"UNFINISHED: go on with the same command: polyvex ablate RECIPE --out {grid}",
    ]
    text = Reader(written.page.read_text(encoding="utf-8")).text
    assert "Cells that are finished cell seed accuracy positions=a 0 50.0% positions=a 1 50.0%" in text


def test_a_run_with_an_ablation_inside_reports_both(hand_run: Path) -> None:
    write_ablation(hand_run / "ablation", [group("a", [A, A], positions=48), group("b", [B, B], positions=8)])
    written = write_report(hand_run)
    assert [path.parent for path in written.paths] == [hand_run] * 3
    text = Reader(written.page.read_text(encoding="utf-8")).text
    assert "exact_match after 2-experts 75.0%" in text
    assert "positions=b higher" in text
    lines = str(written).splitlines()
    assert any(line.startswith("positions=b") for line in lines)
    assert lines[-1] == str(hand_run / "report.html")


def test_cells_with_one_number_of_positions_are_drawn_line_by_line(tmp_path: Path) -> None:
    folder = write_ablation(tmp_path / "grid", [group("a", [A, A]), group("b", [B, B])])
    page = write_report(folder).page.read_text(encoding="utf-8")
    assert "accuracy with 95 % intervals</title>" in page
    assert "against positions used</title>" not in page


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('{"results": [{"label": "a"}]}', r"(?s)ablation\.json is damaged.*results\.0\.values: "),
        ("{", r"ablation\.json is damaged"),
    ],
)
def test_a_damaged_index_is_named(grid: Path, change: str, told: str) -> None:
    (grid / "ablation.json").write_text(change, encoding="utf-8")
    with pytest.raises(RunError, match=told):
        write_report(grid)


def test_without_the_first_combination_nothing_is_called_first(tmp_path: Path) -> None:
    results = compare_all([group("b", [B]), group("c", [C])], first="positions=a")
    assert "the first combination of the plan has no result" in verdict(results)
    folder = write_ablation(tmp_path / "grid", [group("b", [B]), group("c", [C])])
    change_json(folder / "ablation.json", results=[one.as_dict() for one in results])
    assert text_of(folder).count("not compared") == 2


def test_many_cells_that_go_one_way_are_not_named_one_by_one() -> None:
    found = verdict(compare_all([group("b", [B]), group("a", [A]), group("c", [A])]))
    assert "2 of 2 cells differ from the first (positions=b) by an interval without 0: all of them lower." in found
