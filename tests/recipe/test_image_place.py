"""Where images go in the prompt."""

import pytest

from polyvex.recipe.schema import placed

TEMPLATE = "Look. {image}Question: {question}\nAnswer: "


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("template", TEMPLATE),
        ("before", "{image}Look. Question: {question}\nAnswer: "),
        ("between", "Look. Question: {image}{question}\nAnswer: "),
        ("after", "Look. Question: {question}{image}\nAnswer: "),
    ],
)
def test_the_image_is_moved_and_the_text_stays(place: str, expected: str) -> None:
    assert placed(TEMPLATE, place) == expected
