"""Reducers on tokens small enough to work out by hand."""

import pytest
import torch
import torch.nn.functional as F

from polyvex.reducers import register_reducers
from polyvex.reducers.keep import Keep, KeepOptions
from polyvex.reducers.perceiver import Perceiver, PerceiverOptions
from polyvex.testing import check_reducer
from polyvex.tokens import Grid, TokenShape

REDUCERS = register_reducers()
# A grid of 2 × 4, whose token in row r and column c is [10 r + c].
SHAPE = TokenShape(tokens=8, dim=1, grid=Grid(rows=2, cols=4))
VALUES = torch.tensor([0.0, 1, 2, 3, 10, 11, 12, 13])[None, :, None]


def make(name: str, shape: TokenShape = SHAPE, **options: object):
    return REDUCERS[name](REDUCERS[name].Options(**options), shape=shape)


@pytest.mark.parametrize("name", REDUCERS)
def test_the_reducers_of_the_core_pass_the_kit(name: str) -> None:
    assert not check_reducer(REDUCERS[name], REDUCERS[name].Options()).training


def test_the_mean_of_each_window() -> None:
    # (0 + 1 + 10 + 11) / 4 and (2 + 3 + 12 + 13) / 4.
    reducer = make("average_pool")
    assert reducer(VALUES).flatten().tolist() == [5.5, 7.5]
    assert reducer.shape == TokenShape(tokens=2, dim=1, grid=Grid(rows=1, cols=2))


def test_a_window_becomes_channels_row_by_row() -> None:
    reducer = make("pixel_shuffle")
    assert reducer(VALUES).tolist() == [[[0, 1, 10, 11], [2, 3, 12, 13]]]
    assert reducer.shape == TokenShape(tokens=2, dim=4, grid=Grid(rows=1, cols=2))


def test_pixel_shuffle_is_torchs_pixel_unshuffle_up_to_the_order_of_channels() -> None:
    values = torch.randn(3, 24, 5)
    reducer = make("pixel_shuffle", TokenShape(tokens=24, dim=5, grid=Grid(rows=4, cols=6)))
    maps = F.pixel_unshuffle(values.mT.reshape(3, 5, 4, 6), 2)  # channels first, then places within the window
    expected = maps.reshape(3, 5, 4, 6).permute(0, 3, 2, 1).reshape(3, 6, 20)
    assert torch.equal(reducer(values), expected)


def test_a_learned_query_starts_as_the_mean_and_can_choose() -> None:
    reducer = make("attention_pool")
    assert torch.allclose(reducer(VALUES), make("average_pool")(VALUES))
    with torch.no_grad():
        reducer.query.fill_(50.0)
        reducer.key.weight.fill_(1.0)
    assert torch.allclose(reducer(VALUES).flatten(), torch.tensor([11.0, 13.0]))


def test_patches_are_neighbours_along_a_row() -> None:
    reducer = make("patches")
    assert reducer(VALUES).tolist() == [[[0, 1], [2, 3], [10, 11], [12, 13]]]
    assert reducer.shape == TokenShape(tokens=4, dim=2, grid=Grid(rows=2, cols=2))


def test_the_longest_vectors_are_kept_in_their_order() -> None:
    reducer = make("keep", tokens=3, by="norm")
    assert reducer(VALUES).flatten().tolist() == [11, 12, 13]
    assert reducer(VALUES[:, [5, 0, 7, 1, 6, 2, 3, 4]]).flatten().tolist() == [11, 13, 12]
    assert reducer.shape == TokenShape(tokens=3, dim=1)


def test_tokens_that_are_attended_to_are_kept() -> None:
    # Three tokens: a, a and -2a. Centred: they are as they are. Scores x_i · x_j for width 1: rows (1, 1, -2) for the
    # first two and (-2, -2, 4) for the third; the third attends to itself, and the first two to each other.
    values = torch.tensor([1.0, 1.0, -2.0])[None, :, None]
    scores = Keep(KeepOptions(tokens=1), shape=TokenShape(tokens=3, dim=1)).scores(values)[0]
    e = torch.tensor
    first = e([1.0, 1.0, -2.0]).exp() / e([1.0, 1.0, -2.0]).exp().sum()
    third = e([-2.0, -2.0, 4.0]).exp() / e([-2.0, -2.0, 4.0]).exp().sum()
    assert torch.allclose(scores, (2 * first + third) / 3)


def test_a_perceiver_without_change_gives_its_queries() -> None:
    shape = TokenShape(tokens=5, dim=8)
    reducer = Perceiver(PerceiverOptions(queries=3, heads=2), shape=shape)
    with torch.no_grad():
        for layer in reducer.layers:
            layer.out.weight.zero_()
            layer.ffn[-1].weight.zero_()
    expected = F.layer_norm(reducer.queries, (8,))
    assert torch.allclose(reducer(torch.randn(2, 5, 8)), expected.expand(2, -1, -1))


def test_a_perceiver_does_not_know_the_order_of_tokens() -> None:
    reducer = Perceiver(PerceiverOptions(queries=3, heads=2), shape=TokenShape(tokens=5, dim=8))
    values = torch.randn(2, 5, 8)
    assert torch.allclose(reducer(values), reducer(values[:, [3, 1, 4, 0, 2]]), atol=1e-5)
    assert not torch.allclose(reducer(values), reducer(torch.randn(2, 5, 8)), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("average_pool", {"size": 3}, SHAPE, "windows of 3x3 do not fill its grid of 2x4. Use a size of 1, 2"),
        ("pixel_shuffle", {}, TokenShape(tokens=7, dim=5), "its 7 tokens have no grid"),
        ("patches", {"count": 3}, SHAPE, "count = 3 does not divide its 4 columns. Use one of 1, 2, 4"),
        (
            "patches",
            {"count": 2},
            TokenShape(tokens=7, dim=5),
            "count = 2 does not divide its 7 tokens. Use one of 1",
        ),
        ("keep", {"tokens": 9}, SHAPE, "keep.tokens = 9, but there are only 8 tokens"),
        ("perceiver", {"heads": 3}, TokenShape(tokens=7, dim=4), "perceiver.heads = 3 does not divide its width of 4"),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers_and_a_way_out(
    name: str, options: dict[str, object], shape: TokenShape, message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make(name, shape, **options)


def test_attention_is_between_what_sets_tokens_apart() -> None:
    """By hand: (x - mean) (x - mean)ᵀ / √width, a softmax over tokens, the mean over who attends."""
    values = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0)) + 3.0
    reducer = make("keep", TokenShape(tokens=6, dim=4), tokens=2, by="attention")
    centred = values[0] - values[0].mean(dim=0)
    expected = ((centred @ centred.T) / 2.0).softmax(dim=-1).mean(dim=0)
    assert torch.allclose(reducer.scores(values)[0], expected, atol=1e-6)


def test_the_scores_of_a_pool_are_divided_by_the_root_of_the_width() -> None:
    wide = make("attention_pool", TokenShape(tokens=8, dim=4, grid=Grid(rows=2, cols=4)))
    values = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wide.query.copy_(torch.tensor([1.0, -2, 0.5, 3]))
        wide.key.weight.copy_(torch.eye(4))
    window = values[0, [0, 1, 4, 5]]
    expected = (window @ wide.query / 2.0).softmax(dim=0) @ window
    assert torch.allclose(wide(values)[0, 0], expected, atol=1e-6)


def test_queries_of_a_perceiver_attend_to_each_other_as_well() -> None:
    """Flamingo's: keys and values are tokens and queries."""
    torch.manual_seed(0)
    reducer = Perceiver(PerceiverOptions(queries=3, heads=1), shape=TokenShape(tokens=5, dim=8)).eval()
    values = torch.randn(1, 5, 8)
    before = reducer(values)
    with torch.no_grad():
        reducer.queries.view(-1, 8)[2].add_(5 * torch.randn(8))
    assert not torch.allclose(reducer(values)[:, :2], before[:, :2], atol=1e-5)
