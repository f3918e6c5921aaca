"""Answers to a split: each question gets its own, whatever it is batched with."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from polyvex.assemble import Built, build
from polyvex.cache import TokenCache, fill_cache
from polyvex.cache.reader import ImageReader
from polyvex.data import Sample
from polyvex.errors import ContractError
from polyvex.evaluation.base import Metric
from polyvex.evaluation.evaluate import Answered, Evaluation, evaluate, score_of
from polyvex.evaluation.intervals import wilson
from polyvex.evaluation.metrics import ExactMatch
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.samples import read_split


def evaluation(*scores: float, kinds: str = "") -> Evaluation:
    answers = [
        Answered(id=str(place), kind=kind, question="q", expected="e", answer="a", score=float(score))
        for place, (score, kind) in enumerate(zip(scores, kinds or "x" * len(scores), strict=True))
    ]
    return Evaluation(name="e", metric="exact_match", answers=answers)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        # p = 1/2, n = 10, z² = 3.8416: centre 1/2; half = 1.96 / 1.38416 · √(.025 + .009604) = .26340.
        (0.5, 10, 0.2366, 0.7634),
        # p = 0: low 0; high = z²/n / (1 + z²/n) = .38416 / 1.38416.
        (0.0, 10, 0.0, 0.2775),
        (1.0, 10, 0.7225, 1.0),
    ],
)
def test_wilson_by_hand(share: float, count: int, low: float, high: float) -> None:
    assert wilson(share, count) == pytest.approx((low, high), abs=1e-4)


def test_wilson_without_trials_knows_nothing() -> None:
    assert wilson(math.nan, 0) == (0.0, 1.0)


def test_accuracy_is_the_mean_score() -> None:
    assert evaluation(1, 0, 0.5).accuracy == 0.5


def test_by_kind() -> None:
    assert evaluation(1, 0, 0.5, kinds="bab").by_kind() == {"a": (0.0, 1), "b": (0.75, 2)}


def test_summary_is_plain_json() -> None:
    summary = json.loads(json.dumps(evaluation(1, 0).summary()))
    assert summary["accuracy"] == 0.5
    assert summary["questions"] == 2
    assert summary["by_kind"] == {"x": {"accuracy": 0.5, "questions": 2}}
    low, high = summary["interval_95"]
    assert low < 0.5 < high


def test_the_summary_of_no_answers_is_json_too() -> None:
    # NaN is not JSON; other programs cannot read a file that has it.
    json.loads(json.dumps(evaluation().summary()), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_answers_read_back_line_by_line() -> None:
    kept = evaluation(1, 0)
    strange = Answered(id="s", kind="x", question="q", expected="e", answer="a\u2028b\u0085c\n", score=0.0)
    kept.answers.append(strange)
    # Readers of the file use splitlines(), and a model may answer anything.
    lines = kept.lines().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["0", "1", "s"]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    return tiny_recipe()


@pytest.fixture(scope="module")
def built(recipe: Recipe, registries: Registries) -> Built:
    made = build(recipe, registries=registries)
    # A fresh model gives nearly flat logits; sharper ones make different questions get different answers.
    with torch.no_grad():
        made.model.lm.lm_head.weight.mul_(30)
    return made


@pytest.fixture
def samples(recipe: Recipe, registries: Registries) -> list[Sample]:
    samples = list(read_split(recipe, registries, "test"))
    return [*samples, Sample(id="text", question="a longer question without any picture at all?", answer="none")]


@pytest.fixture
def cache(recipe: Recipe, registries: Registries, samples: list[Sample]) -> TokenCache:
    return fill_cache(recipe, registries, samples, progress=False)[0]


@pytest.fixture
def ask(built: Built, cache: TokenCache) -> Callable[..., Evaluation]:
    def run(samples: list[Sample], *, batch_size: int = 4, **options: Any) -> Evaluation:
        return evaluate(
            built.model,
            built.processor,
            samples,
            ImageReader.of(cache, built.processor),
            metric=("exact_match", ExactMatch()),
            batch_size=batch_size,
            max_new_tokens=3,
            name="e",
            progress=False,
            **options,
        )

    return run


Ask = Callable[..., Evaluation]


def test_every_question_is_answered_in_its_order(ask: Ask, samples: list[Sample]) -> None:
    result = ask(samples)
    assert [answer.id for answer in result.answers] == [sample.id for sample in samples]
    assert [answer.expected for answer in result.answers] == [sample.answer for sample in samples]
    assert [answer.images for answer in result.answers] == [sample.images for sample in samples]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_an_answer_does_not_depend_on_its_batch(batch_size: int, ask: Ask, samples: list[Sample]) -> None:
    # Left padding, positions and images must all follow their own row.
    assert len({answer.answer for answer in ask(samples).answers}) > 1
    texts = [answer.answer for answer in ask(samples, batch_size=batch_size).answers]
    assert texts == [answer.answer for answer in ask(samples, batch_size=5).answers]


def test_answers_are_those_of_pixels(ask: Ask, built: Built, samples: list[Sample]) -> None:
    from polyvex.encoders.images import open_image

    for sample, answered in zip(samples[:4], ask(samples[:4]).answers, strict=True):
        inputs = built.processor(open_image(sample.images[0]), built.processor.prompt(sample.question))
        output = built.model.generate(**inputs, max_new_tokens=3, do_sample=False)
        text = built.processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answered.answer == text.strip()


def test_blind_questions_do_not_read_images(built: Built, samples: list[Sample]) -> None:
    result = evaluate(
        built.model,
        built.processor,
        samples,
        lambda paths: pytest.fail("images were read"),
        metric=("exact_match", ExactMatch()),
        batch_size=4,
        max_new_tokens=1,
        name="e",
        images=False,
        progress=False,
    )
    assert result.images is False
    assert len(result.answers) == len(samples)


def test_scores_are_the_metrics(ask: Ask, samples: list[Sample]) -> None:
    first = ask(samples[:1]).answers[0]
    right = Sample(id="r", question=samples[0].question, answer=first.answer, images=samples[0].images)
    scores = [answer.score for answer in ask([right, samples[0]]).answers]
    assert scores == [1.0, float(first.answer == samples[0].answer)]


def test_no_gradient_is_kept_and_the_model_is_in_evaluation_mode(ask: Ask, built: Built, samples: list[Sample]) -> None:
    built.model.train()
    ask(samples[:1])
    assert not built.model.training


def test_an_answer_that_does_not_end_by_itself_is_counted_as_cut(
    ask: Ask, built: Built, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(samples)
    assert whole.cut == sum(answer.cut for answer in whole.answers) == whole.summary()["cut"]
    end = built.processor.tokenizer.eos_token_id
    monkeypatch.setattr(built.model.generation_config, "suppress_tokens", [built.processor.image_token_id, end])
    assert ask(samples).cut == len(samples)
    allowed = [token for token in range(built.model.lm.config.vocab_size) if token != end]
    monkeypatch.setattr(built.model.generation_config, "suppress_tokens", allowed)
    assert ask(samples).cut == 0


def test_a_batch_that_a_kill_has_cut_is_answered_again_as_a_whole(ask: Ask, samples: list[Sample]) -> None:
    batches: list[set[int]] = []
    whole = ask(samples, batch_size=4, keep=lambda answers: batches.append(set(answers)))
    first, second, *_ = ({number: whole.answers[number] for number in batch} for batch in batches)
    cut = {**first, **dict(list(second.items())[:1])}
    again: list[set[int]] = []
    assert ask(samples, batch_size=4, before=cut, keep=lambda answers: again.append(set(answers))) == whole
    assert again == batches[1:]


class Scores(Metric):
    """Scores everything with one value."""

    summary = "one value"

    def __init__(self, value: Any):
        self.value = value

    def score(self, answer: str, sample: Sample) -> float:
        return self.value


@pytest.mark.parametrize(("value", "expected"), [(True, 1.0), (np.float32(0.5), 0.5), (torch.tensor(1), 1.0), (0, 0.0)])
def test_scores_become_floats_that_json_can_store(value: Any, expected: float) -> None:
    score = score_of(("one", Scores(value)), "a", Sample(id="0", question="q", answer="a"))
    assert type(score) is float
    assert score == expected


@pytest.mark.parametrize("value", [None, "right", float("nan"), 1.5, -0.1])
def test_a_score_that_is_no_number_from_0_to_1_is_refused(value: Any) -> None:
    with pytest.raises(ContractError) as error:
        score_of(("one", Scores(value)), "a", Sample(id="0", question="q", answer="a"))
    assert error.value.code == "metric-score"
