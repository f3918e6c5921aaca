"""Real weights see more than raw pixels, by the linear probe of benchmarks/probe.py in small."""

import numpy as np
import probe
import pytest
import torch
from encode import check_same
from probe_pictures import SIDE, Pictures, shapes, words
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

TRAIN, TEST = 200, 100


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return shapes(TRAIN, TEST)


@pytest.fixture(scope="module")
def raw(pictures: Pictures) -> int:
    """How many shapes are told from raw pixels, at the better of two sizes."""
    return max(shapes_told(pictures, probe.raw_pixels(pictures.images, side)) for side in (32, 64))


def shapes_told(pictures: Pictures, values: np.ndarray) -> int:
    labels = pictures.labels["shape"]
    guessed, _ = probe.classify(values[:TRAIN], labels[:TRAIN], values[TRAIN:])
    return int((guessed == labels[TRAIN:]).sum())


@pytest.mark.parametrize(("name", "size"), [("dinov2-s", 56), ("efficientnet-lite0", 64)])
def test_real_weights_tell_more_shapes_than_raw_pixels(name: str, size: int, pictures: Pictures, raw: int) -> None:
    values = probe.encode(name, {"image_size": size}, pictures.images)["4x4"]
    assert shapes_told(pictures, values) >= raw + 30  # of 100; a third is chance


def test_turning_the_values_does_not_change_what_is_predicted() -> None:
    random = np.random.default_rng(0)
    train, test = random.normal(size=(40, 90)), random.normal(size=(60, 90))
    labels = (train[:, :3].sum(axis=1) > 0).astype(int)
    scaler = StandardScaler().fit(train)
    plain = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(train), labels)

    guessed, strength = probe.classify(train, labels, test, (0.1,))
    assert strength == 0.1
    assert (guessed == plain.predict(scaler.transform(test))).all()


def test_intervals() -> None:
    low, high = probe.wilson(81, 263)  # the example of Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)

    better = np.array([True] * 90 + [False] * 10)
    gain, low, high = probe.difference(better, ~better)
    assert (gain, low < 0.8 < high) == (pytest.approx(0.8), True)
    assert probe.difference(better, better) == (0.0, 0.0, 0.0)


def test_rendered_words_are_the_same_each_time_and_only_asked_of_where_there_are_some() -> None:
    one, other = words(6, 4), words(6, 4)
    assert [image.tobytes() for image in one.images] == [image.tobytes() for image in other.images]
    assert {image.size for image in one.images} == {(SIDE, SIDE)}
    assert (one.asked["word"] == one.labels["text"].astype(bool)).all()
    assert 0 < one.asked["word"].sum() < 10


def test_only_equal_tokens_are_timed() -> None:
    tokens = torch.arange(6.0).reshape(1, 2, 3)
    check_same(tokens, tokens + 1e-6, "tokens")
    for other in (tokens + 0.1, tokens[:, :1]):
        with pytest.raises(ValueError, match=r"tokens: .* different values"):
            check_same(tokens, other, "tokens")
