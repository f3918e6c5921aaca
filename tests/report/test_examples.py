"""Which answers are shown, and how their images get into the page."""

import base64
import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from polyvex.evaluation.evaluate import Answered
from polyvex.report.examples import choose, inline

from .conftest import answered


def ids(answers: list[Answered], count: int = 12, right: int = 4) -> list[str]:
    return [example.answered.id for example in choose(answers, count=count, right=right)]


def test_wrong_ones_come_first_and_places_are_kept_for_right_ones() -> None:
    answers = [answered(number, right=number % 2 == 0) for number in range(40)]
    shown = choose(answers)
    assert [example.right for example in shown] == [False] * 8 + [True] * 4


def test_places_that_one_side_does_not_need_go_to_the_other() -> None:
    mostly_right = [answered(0, right=False), *(answered(number) for number in range(1, 30))]
    assert [example.right for example in choose(mostly_right)] == [False] + [True] * 11
    all_wrong = [answered(number, right=False) for number in range(30)]
    assert [example.right for example in choose(all_wrong)] == [False] * 12


def test_every_kind_has_its_turn() -> None:
    answers = [answered(number, right=False, kind="many") for number in range(20)]
    answers += [answered(20, right=False, kind="rare"), answered(21, right=False, kind="few")]
    assert ids(answers, count=4, right=0) == ["q21", "q0", "q20", "q1"]  # few, many, rare, then many again


def test_an_image_is_not_shown_twice_while_others_are_left() -> None:
    shown = [("a",), ("a",), ("b",), ("a",), ("c",)]
    answers = [answered(number, right=False, images=images) for number, images in enumerate(shown)]
    assert ids(answers) == ["q0", "q2", "q4", "q1", "q3"]


def test_half_a_point_is_not_right() -> None:
    assert not choose([answered(0, score=0.5)])[0].right


def test_few_answers_are_all_shown_once() -> None:
    assert ids([answered(0), answered(1, right=False)]) == ["q1", "q0"]
    assert ids([]) == []


def test_an_inlined_image_is_a_png_of_160_pixels_at_most() -> None:
    head, _, data = inline(Image.new("RGB", (320, 80), (1, 2, 3))).partition(",")
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/png;base64"
    assert (small.format, small.size, small.getpixel((5, 5))) == ("PNG", (160, 40), (1, 2, 3))


def test_a_small_image_keeps_its_size() -> None:
    _, _, data = inline(Image.new("RGB", (20, 10))).partition(",")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (20, 10)


def test_of_many_images_four_are_shown_and_the_rest_told(picture: Path) -> None:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    example = choose([answered(0, images=(str(picture),) * 6, image_sha256=(digest,) * 6)])[0]
    assert len(example.images) == 4
    assert example.gone == ["2 more images are not shown"]


@pytest.mark.parametrize("digests", [(), ("",), ("0" * 64,)])
def test_an_image_that_the_question_was_not_about_is_not_shown(picture: Path, digests: tuple[str, ...]) -> None:
    example = choose([answered(0, images=(str(picture),), image_sha256=digests)])[0]
    assert example.images == []
    assert len(example.gone) == 1


def test_a_graded_answer_is_marked_as_graded() -> None:
    assert [one.graded for one in choose([answered(0, score=0.5), answered(1)], graded=True)] == [True, True]
    assert not choose([answered(0, right=False)])[0].graded
