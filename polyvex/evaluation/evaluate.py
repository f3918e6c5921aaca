"""Answer every question of a split from the cache, and keep each answer."""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Annotated, Any

import torch
from pydantic import Field

from polyvex.data.base import Sample
from polyvex.data.batches import ReadImages, pad_left, to_device
from polyvex.data.prompt import CountTokens
from polyvex.errors import ContractError
from polyvex.evaluation.base import Metric
from polyvex.evaluation.intervals import Interval, interval, is_graded
from polyvex.progress import bar
from polyvex.reading import clip


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question with the answer that was given, and its score from 0 to 1.

    ``cut`` is true where the answer did not end by itself within the longest length that was allowed. ``answers``
    lists every correct answer where the sample has several; ``expected`` is the first of them. ``image_sha256`` has
    the digest of each image file, as it was when the question was answered.
    """

    id: str
    kind: str
    question: str
    expected: str
    answer: str
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    images: tuple[str, ...] = ()
    cut: bool = False
    answers: tuple[str, ...] = ()
    image_sha256: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All answers of one evaluation. ``skipped`` counts samples whose image cannot be read.

    ``graded`` marks scores between 0 and 1; it is set by the metric, and by scores that are neither 0 nor 1.
    """

    name: str
    metric: str
    answers: list[Answered]
    skipped: int = 0
    images: bool = True
    graded: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if is_graded([answer.score for answer in self.answers]):
            object.__setattr__(self, "graded", True)

    @property
    def cut(self) -> int:
        """How many answers were cut at the longest length."""
        return sum(answer.cut for answer in self.answers)

    @property
    def accuracy(self) -> float:
        """Mean score; nan without answers."""
        return _mean([answer.score for answer in self.answers])

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean score; see :func:`polyvex.evaluation.intervals.interval`."""
        return interval([answer.score for answer in self.answers], graded=self.graded)

    def by_kind(self) -> dict[str, tuple[float, int]]:
        """Mean score and number of questions of each kind."""
        kinds = sorted({answer.kind for answer in self.answers})
        groups = {kind: [answer.score for answer in self.answers if answer.kind == kind] for kind in kinds}
        return {kind: (_mean(scores), len(scores)) for kind, scores in groups.items()}

    def summary(self) -> dict[str, Any]:
        """The figures without the answers, as plain data."""
        low, high = self.interval
        return {
            "name": self.name,
            "metric": self.metric,
            "graded": self.graded,
            "accuracy": self.accuracy if self.answers else None,
            "interval_95": [low, high],
            "questions": len(self.answers),
            "skipped": self.skipped,
            "cut": self.cut,
            "images": self.images,
            "answers_sha256": hashlib.sha256(self.lines().encode()).hexdigest(),
            "by_kind": {kind: {"accuracy": mean, "questions": count} for kind, (mean, count) in self.by_kind().items()},
            **self.extra,
        }

    def lines(self) -> str:
        """The answers, one JSON object a line."""
        return "".join(json.dumps(asdict(answer), ensure_ascii=True) + "\n" for answer in self.answers)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


Keep = Callable[[Mapping[int, Answered]], None]


@torch.inference_mode()
def evaluate(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    read_images: ReadImages,
    *,
    metric: tuple[str, Metric],
    batch_size: int,
    max_new_tokens: int,
    name: str,
    count: CountTokens = len,
    images: bool = True,
    skipped: int = 0,
    progress: bool = True,
    before: Mapping[int, Answered] | None = None,
    keep: Keep | None = None,
) -> Evaluation:
    """Greedy answers to all ``samples``; questions of like length are answered together.

    Args:
        metric: the metric and its name.
        batch_size: questions at a time.
        max_new_tokens: longest answer.
        count: how many visual tokens images take, where that depends on the image.
        images: false asks without the images, which tells how far guessing gets.
        before: answers of an earlier call that was interrupted, by the number of their sample; these are not asked
            again, except in a batch that is not complete. The caller knows that they belong to the same samples and
            model.
        keep: gets the answers of each batch, by the number of their sample, as soon as they are there.
    """
    model.eval()
    prompts = processor.prompts
    shown = [sample.images if images else () for sample in samples]
    ids = [prompts.question(sample.question, images=count(paths)) for sample, paths in zip(samples, shown, strict=True)]
    found = dict(before or {})
    order = sorted(range(len(samples)), key=lambda index: len(ids[index]))
    ends = end_ids(model)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    left = [
        batch for batch in batches if not found.keys() >= set(batch)
    ]  # batches stay those of an unbroken evaluation
    for chosen in bar(left, desc=f"answer {name}", unit="batch", disable=not progress):
        batch: dict[str, Any] = pad_left([ids[index] for index in chosen], processor.tokenizer.pad_token_id)
        paths = [path for index in chosen for path in shown[index]]
        if paths:
            batch.update(read_images(paths))
        batch = to_device(batch, model.device)
        output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        new = output[:, batch["input_ids"].shape[1] :].tolist()
        texts = processor.tokenizer.batch_decode([before_end(row, ends) for row in new], skip_special_tokens=True)
        answered = {
            index: _answered(samples[index], text.strip(), metric, cut=not ends.intersection(row))
            for index, text, row in zip(chosen, texts, new, strict=True)
        }
        found.update(answered)
        if keep is not None:
            keep(answered)
    answers = [found[index] for index in range(len(samples))]
    return Evaluation(
        name=name, metric=metric[0], answers=answers, skipped=skipped, images=images, graded=metric[1].graded
    )


def end_ids(model: Any) -> set[int]:
    """Ids that end an answer, as the model's generation configuration has them."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


def before_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens of an answer before the first one that ends it. An end may be a token that decoding would show."""
    return list(takewhile(lambda one: one not in ends, ids))


def score_of(metric: tuple[str, Metric], answer: str, sample: Sample) -> float:
    """The score of an answer as a Python float; ``metric`` is the metric and its name.

    Raises:
        ContractError: with the code ``metric-score``, if the metric returns something else than a number from 0 to 1.
    """
    value: Any = metric[1].score(answer, sample)
    try:
        score = float(value)  # bools and the scalars of NumPy and torch, which JSON cannot store, become floats
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise ContractError(
            f"the metric '{metric[0]}' scored an answer with {clip(repr(value), 60)}, expected a number from 0 to 1",
            code="metric-score",
        )
    return score


def _answered(sample: Sample, text: str, metric: tuple[str, Metric], *, cut: bool) -> Answered:
    return Answered(
        id=sample.id,
        kind=sample.kind,
        question=sample.question,
        expected=sample.answer,
        answer=text,
        score=score_of(metric, text, sample),
        images=sample.images,
        cut=cut,
        answers=sample.answers,
    )
