"""Runs within images, images among text, texts in a row: position ids counted by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from polyvex.positions import PositionAssigner, PositionScheme, register_position_schemes
from polyvex.positions.schemes import ShareRowCol
from polyvex.sequence import lay_out
from polyvex.tokens import Grid, Positions, SequenceLayout, TokenShape, VisualLayout

SCHEMES = register_position_schemes()
# An image is 2 × 3 tokens of encoder 0, 2 × 1 of encoder 1, and two tokens without a grid of encoder 2.
LAYOUT = VisualLayout.of(
    [
        TokenShape(tokens=6, dim=4, grid=Grid(rows=2, cols=3)),
        TokenShape(tokens=2, dim=4, grid=Grid(rows=2, cols=1)),
        TokenShape(tokens=2, dim=4),
    ]
)
IMAGE = "x" * LAYOUT.tokens
BASES = [(name, base) for name in SCHEMES for base in ("sequential", "common") if name != "share_encoder"]
BASES += [("share_encoder", "common")]


def make(name: str, layout: VisualLayout = LAYOUT, **options: Any) -> PositionScheme:
    return SCHEMES[name](SCHEMES[name].Options(**options), layout=layout, dim=4)


def assigner(name: str, layout: VisualLayout = LAYOUT, **options: Any) -> PositionAssigner:
    return PositionAssigner(make(name, layout, **options)).eval()


def laid(*rows: str, layout: Any = LAYOUT, documents: list[str] | None = None) -> SequenceLayout:
    """``x`` is a placeholder, ``.`` padding, all else text; ``documents`` has a digit for each place."""
    marks = torch.tensor([[mark == "x" for mark in row] for row in rows])
    valid = torch.tensor([[mark != "." for mark in row] for row in rows])
    numbers = None if documents is None else torch.tensor([[int(one) for one in row] for row in documents])
    return lay_out(marks, valid, layout, numbers)


def assign(name: str, *rows: str, layout: Any = LAYOUT, **options: Any) -> Positions:
    first = layout if isinstance(layout, VisualLayout) else layout[0]
    return assigner(name, first, **options).assign(laid(*rows, layout=layout))


@pytest.mark.parametrize(
    ("name", "base", "expected", "following"),
    [
        # t | encoder 0: row 0, row 1 | encoder 1: rows | encoder 2 | t t
        ("sequential", "sequential", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 13),
        ("sequential", "common", [0, 1, 2, 3, 4, 5, 6, 1, 2, 1, 2, 7, 8], 9),
        ("share_encoder", "common", [0, 1, 2, 3, 4, 5, 6, 1, 2, 1, 2, 7, 8], 9),
        ("share_all", "sequential", [0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5], 6),
        ("share_all", "common", [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3], 4),
        ("share_row", "sequential", [0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7], 8),
        ("share_row_col", "common", [0, 1, 1, 1, 2, 2, 2, 1, 2, 1, 1, 3, 4], 5),
        ("stride", "sequential", [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 4, 5], 6),
        ("stride", "common", [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 0.25, 0.5, 0.25, 0.5, 3, 4], 5),
        ("random_stride", "common", [0, *(n / 16 for n in range(1, 7)), 1 / 16, 1 / 8, 1 / 16, 1 / 8, 2, 3], 4),
    ],
)
def test_ids_by_hand(name: str, base: str, expected: list[float], following: int) -> None:
    positions = assign(name, f"t{IMAGE}tt", base=base)
    assert positions.ids.tolist() == [expected]
    assert positions.next_id.tolist() == [following]


def test_what_rounding_leaves_of_steps_takes_no_position() -> None:
    # In floats 7 · 0.1 + 3 · 0.1 is a little more than 1.
    layout = VisualLayout.of([TokenShape(tokens=7, dim=4), TokenShape(tokens=3, dim=4)])
    assert assign("stride", "x" * 10 + "t", layout=layout, step=0.1).ids[0, -1] == 1


@pytest.mark.parametrize(("name", "base"), BASES)
def test_whole_positions_are_whole_numbers_and_others_float32(name: str, base: str) -> None:
    fraction = name in ("stride", "random_stride", "interpolate")
    budget = {"positions": 2} if name == "interpolate" else {}
    positions = assign(name, f"t{IMAGE}tt", base=base, **budget)
    assert positions.ids.dtype == (torch.float32 if fraction else torch.int64)
    assert positions.next_id.dtype == torch.int64


@pytest.mark.parametrize(("name", "base"), BASES)
def test_text_alone_is_counted_as_usual(name: str, base: str) -> None:
    assert assign(name, "ttttt", base=base).ids.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("name", "base"), BASES)
@pytest.mark.parametrize("row", [f"tt{IMAGE}t", f"{IMAGE}tt", f"t{IMAGE}{IMAGE}t", f"t{IMAGE}t{IMAGE}", "tt"])
def test_padding_on_either_side_changes_nothing(name: str, base: str, row: str) -> None:
    plain = assign(name, row, base=base)
    padded = assign(name, f"...{row}", f"{row}...", base=base)
    assert torch.equal(padded.ids[0, 3:], plain.ids[0])
    assert torch.equal(padded.ids[1, :-3], plain.ids[0])
    assert padded.next_id.tolist() == plain.next_id.tolist() * 2
    assert padded.ids[0, :3].tolist() == padded.ids[1, -3:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("name", "base"), BASES)
def test_images_share_no_position_with_each_other_nor_with_text(name: str, base: str) -> None:
    row = f"t{IMAGE}{IMAGE}t{IMAGE}t"
    ids = assign(name, row, base=base).ids[0].tolist()
    owners = []
    for place, mark in enumerate(row):
        inside = (place - 1) // 10 if place <= 20 else 2
        owners.append(f"image {inside}" if mark == "x" else f"text {place}")
    for owner in set(owners):
        mine = {position for position, other in zip(ids, owners, strict=True) if other == owner}
        others = {position for position, other in zip(ids, owners, strict=True) if other != owner}
        assert not mine & others


@pytest.mark.parametrize(("name", "base"), BASES)
def test_text_after_an_image_continues_at_a_whole_free_position(name: str, base: str) -> None:
    positions = assign(name, f"t{IMAGE}t", base=base)
    highest = float(positions.ids[0, :-1].max())
    assert float(positions.ids[0, -1]).is_integer()
    if "stride" in name:  # V2PE: the next whole position after the last token's
        assert float(positions.ids[0, -1]) == math.ceil(highest) + 1
    assert highest < float(positions.ids[0, -1]) <= math.ceil(highest) + 1


@pytest.mark.parametrize(("name", "base"), BASES)
def test_where_decoding_goes_on_when_a_prompt_ends_with_an_image(name: str, base: str) -> None:
    ends = assign(name, f"t{IMAGE}", base=base)
    assert ends.next_id[0] == assign(name, f"t{IMAGE}t", base=base).ids[0, -1]


@pytest.mark.parametrize(("name", "base"), BASES)
def test_each_packed_text_has_the_positions_of_a_row_of_its_own(name: str, base: str) -> None:
    first, second, third = f"t{IMAGE}t", "ttt", f"{IMAGE}{IMAGE}tt"
    numbers = "0" * len(first) + "1" * len(second) + "2" * len(third) + "0" * 2
    layout = laid(f"{first}{second}{third}..", documents=[numbers])
    together = assigner(name, base=base).assign(layout)
    alone = [assign(name, one, base=base) for one in (first, second, third)]
    assert torch.equal(together.ids[0, :-2], torch.cat([one.ids[0] for one in alone]))
    assert together.next_id.tolist() == alone[-1].next_id.tolist()


def small(rows: int, cols: int) -> VisualLayout:
    return VisualLayout.of([TokenShape(tokens=rows * cols, dim=4, grid=Grid(rows=rows, cols=cols))])


def test_images_of_several_sizes_are_counted_each_by_itself() -> None:
    layouts = [small(2, 2), small(1, 3), small(3, 1)]
    positions = assign("share_row", "txxxxtxxxt", "xxxt......", layout=layouts)
    assert positions.ids.tolist() == [[0, 1, 1, 2, 2, 3, 4, 4, 4, 5], [0, 1, 2, 3, 0, 0, 0, 0, 0, 0]]
    assert positions.next_id.tolist() == [6, 4]


def test_rows_do_not_mix() -> None:
    rows = (f"t{IMAGE}tt", f"{IMAGE}ttt", f"ttt{IMAGE}")
    together = assign("share_row", *rows)
    for index, row in enumerate(rows):
        assert torch.equal(together.ids[index], assign("share_row", row).ids[0])


def test_a_separator_takes_a_position_of_its_own() -> None:
    run = small(1, 2)
    other = VisualLayout.on(Grid(rows=1, cols=2).coords(), source=1)
    layout = VisualLayout.joined([run, VisualLayout.separator(2), other])
    row = "txxxxxxt"
    assert assign("share_all", row, layout=layout).ids.tolist() == [[0, 1, 1, 2, 3, 4, 4, 5]]
    assert assign("share_all", row, layout=layout, base="common").ids.tolist() == [[0, 1, 1, 2, 3, 1, 1, 4]]
    # A separator is at a whole position, and the next run continues a step after it.
    assert assign("stride", row, layout=layout, step=0.5).ids.tolist() == [[0, 0.5, 1, 2, 3, 3.5, 4, 5]]
    assert assign("stride", row, layout=layout, step=0.75).ids.tolist() == [[0, 0.75, 1.5, 3, 4, 4.75, 5.5, 7]]


def test_an_encoder_may_have_a_scheme_of_its_own() -> None:
    mixed = PositionAssigner(make("sequential"), {0: make("share_row"), 2: make("share_all", base="common")}).eval()
    # Encoder 0 by rows, encoder 1 one by one behind it, encoder 2 at the image's first position.
    assert mixed.assign(laid(f"t{IMAGE}t")).ids.tolist() == [[0, 1, 1, 1, 2, 2, 2, 3, 4, 1, 1, 5]]


def test_a_scheme_of_its_own_changes_only_its_encoders_embeddings() -> None:
    own = ShareRowCol(ShareRowCol.Options(), layout=LAYOUT.pick(LAYOUT.run == 0), dim=4)
    with torch.no_grad():
        own.columns.fill_(1.0)
    mixed = PositionAssigner(make("sequential"), {0: own})
    added = mixed.embed(torch.zeros(2, LAYOUT.tokens, 4), LAYOUT)
    assert added[..., 0].tolist() == [[1] * 6 + [0] * 4] * 2
    flat = mixed.embed(torch.zeros(2 * LAYOUT.tokens, 4), VisualLayout.joined([LAYOUT, LAYOUT]))
    assert torch.equal(flat, added.flatten(0, 1))
    assert added.requires_grad


def test_interleaved_encoders_are_one_run() -> None:
    coords = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [1, 0], [1, 1], [1, 1]])
    layout = VisualLayout(
        run=torch.zeros(8, dtype=torch.long),
        source=torch.tensor([0, 1] * 4),
        view=torch.zeros(8, dtype=torch.long),
        coords=coords,
    )
    assert assign("share_row", "x" * 8, layout=layout).ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert assign("sequential", "x" * 8, layout=layout).ids.tolist() == [list(range(8))]


def test_each_image_draws_its_own_step_in_training() -> None:
    scheme = PositionAssigner(make("random_stride"))
    scheme.train()
    torch.manual_seed(1)
    ids = scheme.assign(laid(*[f"{IMAGE}t"] * 40)).ids
    assert len({float(row[1]) for row in ids}) > 3
    assert all(float(row[-1]).is_integer() for row in ids)
    scheme.eval()
    assert len({float(row[1]) for row in scheme.assign(laid(*[f"{IMAGE}t"] * 4)).ids}) == 1


def test_rounding_takes_up_no_position_too_many() -> None:
    # Ten steps of a tenth are one position, though their sum in floating point is not 1.
    layout = small(1, 10)
    assert assign("stride", "t" + "x" * 10 + "t", layout=layout, step=0.1).ids[0, -1] == 2


def test_whole_counts_stay_exact_far_into_a_sequence() -> None:
    row = "t" * 9000 + IMAGE + "t"
    ids = assign("stride", row, step=1 / 256).ids[0]
    assert ids[9000:9010].tolist() == [8999 + n / 256 for n in range(1, 11)]
    assert ids[-1] == 9001


def test_a_step_of_one_gives_whole_numbers() -> None:
    for name, options in (("stride", {"step": 1.0}), ("interpolate", {"positions": 99})):
        assert assign(name, f"t{IMAGE}t", **options).ids.dtype == torch.int64


def test_a_budget_is_kept_by_the_runs_that_share_it() -> None:
    layout = VisualLayout.of([TokenShape(tokens=8, dim=4), TokenShape(tokens=4, dim=4)])
    row = "x" * 12 + "t"
    together = assign("interpolate", row, layout=layout, positions=3)
    assert together.ids[0, -1] == 3
    assert together.ids[0, :12].tolist() == [number / 4 for number in range(12)]
    # Side by side each run has the whole budget.
    apart = assign("interpolate", row, layout=layout, positions=2, base="common")
    assert apart.ids[0, -1] == 2
    assert apart.ids[0, :12].tolist() == [number / 4 for number in range(8)] + [number / 2 for number in range(4)]


def test_a_budget_of_one_encoders_own_is_its_own() -> None:
    layout = VisualLayout.of([TokenShape(tokens=8, dim=4), TokenShape(tokens=4, dim=4)])
    own = make("interpolate", layout, positions=2)
    ids, takes = PositionAssigner(make("sequential", layout), {0: own}).of_image(layout)
    assert ids.tolist() == [number / 4 for number in range(8)] + [2, 3, 4, 5]
    assert takes == 6


def test_float32_is_kept_to_the_end() -> None:
    # bfloat16 has eight bits: after 300 text tokens a sixteenth of a position would be lost.
    layout = VisualLayout.of([TokenShape(tokens=4, dim=4)])
    found = assign("stride", "t" * 300 + "xxxx", layout=layout, step=0.0625).ids[0, 300:]
    assert found.tolist() == [299.0625, 299.125, 299.1875, 299.25]


def test_a_whole_position_is_not_missed_by_a_rounding_error() -> None:
    # Runs of 1 and 2 at steps of 0.1: 0.1 + 0.2 is a little more than 0.3 in floats, and ten of them more than 1.
    sizes = [TokenShape(tokens=count, dim=4) for count in (1, 2, 1, 2, 1, 2, 1)]
    layout = VisualLayout.of(sizes)
    positions = assign("stride", "x" * 10 + "tt", layout=layout, step=0.1)
    assert positions.ids[0, -2:].tolist() == [1, 2]
    assert positions.next_id.tolist() == [3]


def test_separators_take_nothing_of_a_budget() -> None:
    run = TokenShape(tokens=4, dim=4)
    layouts = [VisualLayout.of([run]), VisualLayout.separator(3), VisualLayout.of([run])]
    second = replace(layouts[2], run=layouts[2].run + 1, source=layouts[2].source + 1)
    layout = VisualLayout.joined([layouts[0], layouts[1], second])
    ids, takes = assigner("interpolate", layout, positions=2).of_image(layout)
    assert ids.tolist() == [0, 0.25, 0.5, 0.75, 1, 2, 3, 4, 4.25, 4.5, 4.75]
    assert takes == 5


def test_an_image_takes_a_position_at_least() -> None:
    layout = VisualLayout.of([TokenShape(tokens=1, dim=4)])
    assert assign("stride", "txt", layout=layout, step=0.125).ids.tolist() == [[0, 0.125, 2]]


def v2pe(row: str, step: float) -> list[float]:
    """V2PE's rule (``get_rope_pos_id`` of OpenGVLab/V2PE): a step before each visual token, text on the next whole."""
    ids, at = [], -1.0
    for here in row:
        at = at + step if here == "x" else float(math.ceil(round(at, 9))) + 1
        ids.append(at)
    return ids


@pytest.mark.parametrize("step", [1.0, 0.5, 0.25, 0.125, 1 / 16, 1 / 64, 1 / 256])
@pytest.mark.parametrize("row", ["txxxxxxxxt", "tttxxxxxxxxtttxxxxxxxxtt", "txxxxxxxxtxxxxxxxx"])
def test_steps_are_those_of_v2pes_code(row: str, step: float) -> None:
    layout = VisualLayout.of([TokenShape(tokens=8, dim=4)])
    found = assign("stride", row, layout=layout, step=step)
    assert found.ids[0].tolist() == v2pe(row, step)
    assert found.next_id.tolist() == [v2pe(f"{row}t", step)[-1]]
    assert assign("random_stride", row, layout=layout, step=step).ids[0].tolist() == v2pe(row, step)


def test_several_runs_of_an_image_step_as_one() -> None:
    layout = VisualLayout.of([TokenShape(tokens=5, dim=4), TokenShape(tokens=3, dim=4)])
    row = "tt" + "x" * 8 + "t"
    assert assign("stride", row, layout=layout, step=0.125).ids[0].tolist() == v2pe(row, 0.125)


def test_an_image_without_text_in_front_starts_below_zero() -> None:
    # Rotary positions depend on differences alone, so V2PE's rule holds there, too.
    layout = VisualLayout.of([TokenShape(tokens=2, dim=4)])
    assert assign("stride", "xxt", layout=layout, step=0.25).ids[0].tolist() == [-0.75, -0.5, 1]
