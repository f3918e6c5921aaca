"""Bringing a fusion to the size of another one."""

from typing import Any

import pytest

from polyvex.fusion import Fusion, register_fusions
from polyvex.fusion.matching import Match, What, bring_to, size_of
from polyvex.tokens import Grid, TokenShape

DIM = 32
INPUTS = [
    TokenShape(tokens=64, dim=24, grid=Grid(rows=8, cols=8)),
    TokenShape(tokens=16, dim=40, grid=Grid(rows=4, cols=4)),
]
FUSIONS = register_fusions()


def small(name: str, **changes: Any) -> Any:
    """Options of a fusion that are quick to count."""
    kind = FUSIONS[name]
    fields = kind.Options.model_fields
    wanted = {"grid": 4, "heads": 2, "layers": 2, "width": 24} | {"hidden": 16}
    return kind.Options(**{key: value for key, value in wanted.items() if key in fields} | changes)


def wide(name: str) -> Any:
    """Like :func:`small`, but nothing is set that decides the parameters."""
    options = small(name)
    return options.model_copy(update={"hidden": None}) if FUSIONS[name].sizes["parameters"] == "hidden" else options


def brought(name: str, what: What, wanted: int) -> tuple[Any, Match, type[Fusion]]:
    options, match = bring_to(FUSIONS[name], wide(name), what, wanted, inputs=INPUTS, dim=DIM)
    return options, match, FUSIONS[name]


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_every_fusion_comes_within_two_percent_of_wanted_parameters(name: str) -> None:
    options, match, kind = brought(name, "parameters", 40_000)
    built = kind(options, inputs=INPUTS, dim=DIM)
    assert sum(parameter.numel() for parameter in built.parameters()) == match.got
    assert abs(match.got - 40_000) <= 800
    assert getattr(options, match.option) == match.value


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_no_other_value_comes_nearer(name: str) -> None:
    _, match, kind = brought(name, "parameters", 40_000)
    for value in (match.value - 1, match.value + 1):
        other = wide(name).model_copy(update={match.option: value})
        assert abs(kind.count_parameters(other, inputs=INPUTS, dim=DIM) - 40_000) >= abs(match.got - 40_000)


@pytest.mark.parametrize("name", sorted(set(FUSIONS) - {"mlp", "expert_choice"}))
def test_every_fusion_but_mlp_gives_the_tokens_of_two_squares(name: str) -> None:
    """32 = 2 · 4², as a grid for each encoder needs it; one grid alone needs a square, 36."""
    alone = FUSIONS[name].sizes["tokens"] == "grid" and name != "interleave"
    wanted = 36 if alone else 32
    _, match, _ = brought(name, "tokens", wanted)
    assert match.got == wanted


def test_mlp_takes_the_divisor_that_comes_nearest() -> None:
    """By hand: 8 and 4 columns, so 1, 2 or 4 patches per token, and 80, 40 or 20 tokens."""
    options, match, _ = brought("mlp", "tokens", 39)
    assert (options.patches_per_token, match.got) == (2, 40)
    with pytest.raises(ValueError, match=r"patches_per_token = 2 gives 40 tokens \(30 wanted, \+33.33%\)"):
        brought("mlp", "tokens", 30)


def test_the_width_of_an_mlp_by_hand() -> None:
    """(24 + 40) h + 2 h + 32 h + 32 = 98 h + 32 numbers: 4,932 at h = 50."""
    options, match, _ = brought("mlp", "parameters", 4_970)
    assert options.hidden == 50
    assert (match.got, match.wanted) == (4_932, 4_970)
    assert str(match) == "hidden = 50 gives 4,932 parameters (4,970 wanted, -0.76%)"


def test_an_exact_match_is_called_so() -> None:
    wanted = size_of(FUSIONS["qformer"], small("qformer", ffn=50), "parameters", inputs=INPUTS, dim=DIM)
    _, match, _ = brought("qformer", "parameters", wanted)
    assert str(match) == f"ffn = 50 gives {wanted:,} parameters (as wanted)"


def test_what_is_too_large_in_any_case_is_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match=r"ffn = 1 gives [\d,]+ parameters \(50 wanted, \+[\d.]+%\) is the nearest"):
        brought("qformer", "parameters", 50)


def test_why_no_value_fits_is_told() -> None:
    with pytest.raises(ValueError, match=r"hidden = 1 has no effect with depth = 1"):
        bring_to(FUSIONS["mlp"], FUSIONS["mlp"].Options(depth=1), "parameters", 500, inputs=INPUTS, dim=DIM)


def test_a_fusion_without_such_an_option_is_told() -> None:
    class Plain(FUSIONS["mlp"]):  # type: ignore[misc, name-defined]
        sizes = {}  # noqa: RUF012

    with pytest.raises(ValueError, match=r"no option of this fusion changes its tokens"):
        bring_to(Plain, Plain.Options(), "tokens", 16, inputs=INPUTS, dim=DIM)


def test_an_option_that_changes_nothing_is_refused() -> None:
    options = small("soft_moe", output="tokens")
    with pytest.raises(ValueError, match="slots changes no tokens with these options"):
        bring_to(FUSIONS["soft_moe"], options, "tokens", 80, inputs=INPUTS, dim=DIM)


def test_large_numbers_are_found_without_trying_all() -> None:
    asked = []

    class Counting(FUSIONS["qformer"]):  # type: ignore[misc, name-defined]
        @classmethod
        def describe(cls, options: Any, **others: Any) -> Any:
            asked.append(options.queries)
            return super().describe(options, **others)

    options, match = bring_to(Counting, small("qformer"), "tokens", 2_000_000, inputs=INPUTS, dim=DIM)
    assert (options.queries, match.got) == (1_000_000, 2_000_000)
    assert len(asked) < 200


def test_widths_beyond_four_thousand_are_found() -> None:
    _, match, _ = brought("mlp", "parameters", 98 * 9_000 + 32)
    assert match.value == 9_000
