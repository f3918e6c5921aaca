"""What every sample of a data set must be; checked where a split is read, whichever data set made it."""

from collections.abc import Iterable, Sequence

from polyvex.data.base import Sample
from polyvex.errors import DataError
from polyvex.reading import clip

SHOWN = 10
"""Problems that an error names."""

LONGEST_PATH = 4096
"""Characters that the path of an image may have."""


def text_problem(value: object) -> str:
    """Why ``value`` is no text for a sample; empty if it is one."""
    if not isinstance(value, str):
        return f"is {described(value)}; expected text"
    if not value or value.isspace():
        return f"is {clip(repr(value))}; expected some text"
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return f"contains half of a surrogate pair: {clip(value)}"
    return ""


def path_problem(value: object) -> str:
    """Why ``value`` is no path of an image; empty if it can be one."""
    if problem := text_problem(value):
        return problem
    text = str(value)
    start = text[:16].lower()
    if start.startswith("data:"):
        return f"is a data URI ({len(text):,} characters). Store the image as a file and give its path"
    if start.startswith(("http://", "https://", "file://", "s3://", "gs://")):
        return f"is the URL {clip(text)}. Store the image as a file and give its path"
    if "\0" in text:
        return f"contains a NUL character: {clip(text)}"
    return f"has {len(text):,} characters; expected a path" if len(text) > LONGEST_PATH else ""


def described(value: object) -> str:
    """A value that is no text, as JSON names it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        try:
            return f"the number {clip(str(value), 20)}"
        except ValueError:  # Python does not write out integers of thousands of digits
            return "a very long number"
    return {list: "a list", tuple: "a list", dict: "an object", str: "text"}.get(type(value), type(value).__name__)


def sample_problems(sample: object) -> list[str]:
    """What is wrong with one sample, a sentence for each part."""
    if not isinstance(sample, Sample):
        return [f"got {type(sample).__name__}; expected Sample"]
    parts = ("id", "question", "answer", "kind")
    problems = [f"{part} {problem}" for part in parts if (problem := text_problem(getattr(sample, part)))]
    for part, check in (("answers", text_problem), ("images", path_problem)):
        values: object = getattr(sample, part)
        if isinstance(values, tuple):
            problems += [f"{part} has an entry that {problem}" for one in values if (problem := check(one))]
        else:
            problems.append(f"{part} is {described(values)} ({type(values).__name__}); expected a tuple of texts")
    if isinstance(sample.answers, tuple) and sample.answers and sample.answer not in sample.answers:
        problems.append("answers does not contain answer")
    return problems


def check_samples(samples: Sequence[Sample], *, where: str) -> None:
    """Refuse samples that are incomplete, of a wrong type, or not told apart by their ids.

    Args:
        where: what they belong to, for the message.

    Raises:
        DataError: with the code ``samples``, listing the problems.
    """
    problems, seen = [], set()
    for number, sample in enumerate(samples):
        found = sample_problems(sample)
        name = clip(repr(getattr(sample, "id", number)), 60)
        if not found and sample.id in seen:
            found = ["another sample has the same id; give each its own"]
        seen.add(getattr(sample, "id", None) if not found else None)
        problems += [f"sample {name}: {problem}" for problem in found]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        raise DataError("\n".join([f"{where}: {count}", *listed(problems)]), code="samples")


def listed(problems: Iterable[str], *, count: int | None = None) -> list[str]:
    """The first problems, and how many more there are.

    Args:
        count: how many there are, if ``problems`` does not hold all of them.
    """
    kept = list(problems)
    more = (len(kept) if count is None else count) - SHOWN
    return kept[:SHOWN] + ([f"… and {more:,} more problems"] if more > 0 else [])
