"""The splice: counts first, then merges, and says what sits where."""

import pytest
import torch
from torch import Tensor

from polyvex.errors import ContractError
from polyvex.sequence import images_of_rows, inputs_of, lay_out, splice
from polyvex.tokens import TEXT, Grid, TokenShape, VisualLayout, VisualSequence

# One image is three tokens: two of encoder 0 on a grid of 1 × 2, one of encoder 1 without a grid.
LAYOUT = VisualLayout.of([TokenShape(tokens=2, dim=4, grid=Grid(rows=1, cols=2)), TokenShape(tokens=1, dim=4)])


def tokens(images: int, dim: int = 4) -> Tensor:
    return torch.arange(1.0, images * 3 * dim + 1).reshape(images * 3, dim)


def places(*rows: str) -> Tensor:
    """``x`` is a placeholder, anything else is text or padding."""
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


def test_visual_tokens_go_to_their_places_in_order() -> None:
    text = torch.zeros(2, 8, 4)
    marks = places("tttxxxtt", "txxxxxxt")  # one image in the first row, two in the second
    visual = tokens(3)
    spliced = splice(text, marks, visual)
    assert torch.equal(spliced[0, 3:6], visual[:3])
    assert torch.equal(spliced[1, 1:4], visual[3:6])
    assert torch.equal(spliced[1, 4:7], visual[6:])


def test_text_stays_where_it_was() -> None:
    text = torch.randn(1, 5, 4)
    spliced = splice(text, places("txxxt"), tokens(1))
    assert torch.equal(spliced[:, [0, 4]], text[:, [0, 4]])


def test_placeholders_of_one_image_need_not_touch() -> None:
    spliced = splice(torch.zeros(1, 5, 4), places("xtxtx"), tokens(1))
    assert torch.equal(spliced[0, [0, 2, 4]], tokens(1))


@pytest.mark.parametrize(("row", "images", "wanted"), [("xxxxxxtt", 1, 6), ("xxxttttt", 2, 3), ("tttttttt", 1, 0)])
def test_surplus_and_missing_tokens_are_an_error_with_both_numbers(row: str, images: int, wanted: int) -> None:
    with pytest.raises(ContractError) as caught:
        splice(torch.zeros(1, 8, 4), places(row), tokens(images))
    assert str(caught.value) == (
        f"placeholders and visual tokens differ: got {wanted} placeholders for {images * 3} visual tokens. "
        "Was the prompt made by another recipe, or for other images?"
    )


def test_counting_comes_before_merging() -> None:
    # masked_scatter alone drops surplus tokens without a word; the text must be untouched when it is refused.
    text = torch.zeros(1, 3, 4)
    with pytest.raises(ContractError):
        splice(text, places("xxx"), tokens(2))
    assert torch.equal(text, torch.zeros(1, 3, 4))


def test_placeholders_without_an_image_are_an_error() -> None:
    with pytest.raises(ContractError, match=r"got 3 placeholders but no image\. Pass pixel_values or encoder_tokens"):
        splice(torch.zeros(1, 3, 4), places("xxx"), None)


def test_text_alone_passes_through() -> None:
    text = torch.randn(2, 3, 4)
    assert splice(text, places("ttt", "ttt"), None) is text


def test_other_width_is_an_error_with_both_widths() -> None:
    with pytest.raises(ContractError, match="visual tokens are 5 wide, the language model's embeddings 4"):
        splice(torch.zeros(1, 3, 4), places("xxx"), tokens(1, dim=5))


def test_gradients_reach_text_and_visual_tokens_and_no_placeholder() -> None:
    text = torch.zeros(1, 5, 4, requires_grad=True)
    visual = tokens(1)
    visual.requires_grad_(True)
    splice(text, places("txxxt"), visual).sum().backward()
    assert visual.grad is not None
    assert text.grad is not None
    assert torch.equal(visual.grad, torch.ones(3, 4))
    # What was embedded at a placeholder is thrown away, so no gradient may reach it.
    assert text.grad[0, :, 0].tolist() == [1, 0, 0, 0, 1]


def test_visual_tokens_take_the_precision_of_the_text() -> None:
    spliced = splice(torch.zeros(1, 3, 4, dtype=torch.bfloat16), places("xxx"), tokens(1))
    assert spliced.dtype == torch.bfloat16


def test_layout_says_image_source_and_place() -> None:
    layout = lay_out(places("txxxxxxt"), torch.ones(1, 8, dtype=torch.bool), LAYOUT)
    assert layout.image.tolist() == [[TEXT, 0, 0, 0, 1, 1, 1, TEXT]]
    assert layout.source.tolist() == [[TEXT, 0, 0, 1, 0, 0, 1, TEXT]]
    assert layout.coords[0, :, 0].tolist() == [TEXT, 0, 0, TEXT, 0, 0, TEXT, TEXT]
    assert layout.coords[0, :, 1].tolist() == [TEXT, 0, 1, TEXT, 0, 1, TEXT, TEXT]


def test_images_are_counted_row_by_row() -> None:
    layout = lay_out(places("xxxt", "txxx"), torch.ones(2, 4, dtype=torch.bool), LAYOUT)
    assert layout.image.tolist() == [[0, 0, 0, TEXT], [TEXT, 0, 0, 0]]


def test_part_of_an_image_is_an_error_with_the_row() -> None:
    with pytest.raises(ContractError) as caught:
        lay_out(places("xxxt", "txxt"), torch.ones(2, 4, dtype=torch.bool), LAYOUT)
    assert str(caught.value) == (
        "row 1 has 2 placeholders, expected a multiple of 3, the visual tokens of one image. "
        "Was the prompt made by another recipe, or cut?"
    )


def test_splice_and_layout_agree() -> None:
    marks = places("txxxt")
    valid = torch.ones(1, 5, dtype=torch.bool)
    inputs = inputs_of(torch.zeros(1, 5, 4), marks, valid, VisualSequence(values=tokens(1), layouts=LAYOUT), LAYOUT)
    assert torch.equal(inputs.layout.image != TEXT, marks)
    assert torch.equal(inputs.embeds[marks], tokens(1))
    assert inputs.layout.valid is valid


def test_images_per_row() -> None:
    assert images_of_rows([3, 0, 6], LAYOUT) == [1, 0, 2]


def of(*counts: int) -> list[VisualLayout]:
    """Layouts of images of one encoder that have so many tokens, in one row."""
    return [VisualLayout.of([TokenShape(tokens=count, dim=4, grid=Grid(rows=1, cols=count))]) for count in counts]


def test_images_of_different_sizes_take_their_places_in_order() -> None:
    layout = lay_out(places("txxtxxx", "xttttxt"), torch.ones(2, 7, dtype=torch.bool), of(2, 3, 1, 1))
    assert layout.image.tolist() == [[TEXT, 0, 0, TEXT, 1, 1, 1], [0, TEXT, TEXT, TEXT, TEXT, 1, TEXT]]
    assert layout.coords[..., 1].tolist() == [[TEXT, 0, 1, TEXT, 0, 1, 2], [0, TEXT, TEXT, TEXT, TEXT, 0, TEXT]]
    assert layout.view[0].tolist() == [TEXT, 0, 0, TEXT, 0, 0, 0]


def test_text_alone_has_no_layout_of_images() -> None:
    layout = lay_out(places("ttt"), torch.ones(1, 3, dtype=torch.bool), [])
    assert layout.image.tolist() == layout.source.tolist() == layout.view.tolist() == [[TEXT] * 3]


@pytest.mark.parametrize(
    ("counts", "images", "message"),
    [
        ([2], (3,), "row 0 has 2 placeholders, which are not whole images: the images of the batch have 3 visual"),
        ([3, 4], (3, 3), "row 1 has 4 placeholders, which are not whole images"),
        ([2], (), "row 0 has 2 placeholders, which are not whole images: the images of the batch have no visual"),
        ([3], (3, 5), "got 2 images, but placeholders for 1 of them"),
    ],
)
def test_images_that_are_not_whole_are_an_error(counts: list[int], images: tuple[int, ...], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        images_of_rows(counts, of(*images))
