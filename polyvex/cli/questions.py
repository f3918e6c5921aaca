"""Compose a recipe by questions: one per choice, repeated until the answer can be used, with all others kept."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from polyvex.catalog import missing_here
from polyvex.cli.output import echo, prompt
from polyvex.errors import RecipeError, StorageError
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry, near_names, unknown
from polyvex.options import Options
from polyvex.recipe.compose import MOE_CHOICES, Choices, compose_recipe
from polyvex.recipe.schema import NAME
from polyvex.recipe.values import parse_value
from polyvex.storage import write_text


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about a recipe.

    ``words`` are the answers with a name, each with a line about it; ``free`` accepts other answers, which may be
    paths. An answer to a question with ``several`` lists words. ``registry`` has the components that words name.
    """

    text: str
    kind: str
    words: Mapping[str, str]
    default: str = ""
    free: Callable[[str], bool] = lambda answer: False
    paths: bool = False
    several: bool = False
    registry: Registry[Any] | None = None

    def split(self, answer: str) -> list[str]:
        """The words of an answer."""
        return answer.replace(",", " ").split() if self.several else [answer]

    def unusable(self, answer: str) -> list[str]:
        """Words of an answer that the question does not accept."""
        return [word for word in self.split(answer) if word not in self.words and not self.free(word)]

    def corrected(self, answer: str) -> str:
        """The answer with the nearest name in place of each unusable word; empty if one has none."""
        near = {word: near_names(word, list(self.words))[:1] for word in self.unusable(answer)}
        return " ".join("".join(near.get(word, [word])) for word in self.split(answer)) if all(near.values()) else ""


def write_by_questions(registries: Registries, file: Path | None = None) -> Path:
    """Ask for each part of a recipe, and write it. Return the file.

    If the recipe fails its check, or the file cannot be written, only that answer is asked for again.

    Args:
        file: where to write the recipe; asked for if not given.
    """
    interview = Interview(registries)
    for key in interview.questions:
        interview.ask(key)
    while True:
        try:
            compose_recipe(interview.choices(), registries)
            file = file or ask_file(interview.answers["name"])
            write_text(file, compose_recipe(interview.choices(), registries, file=file))
            return file
        except RecipeError as error:
            echo(f"{error}\nThe other answers are kept.")
            interview.ask(interview.ask_which(error.problems))
        except (OSError, StorageError) as error:
            echo(f"cannot write {file}: {error}")
            file = None


def ask_file(name: str) -> Path:
    """Where to write the recipe. An existing file is not overwritten."""
    while True:
        path = Path(prompt("file to write", default=f"{name}.toml", paths=True))
        if not path.exists():
            return path
        echo(f"{path} exists; choose another file")


class Interview:
    """The questions about a recipe, and the answers so far by the question's key.

    ``options`` has the options without a default, by the table of the component that needs them.
    """

    def __init__(self, registries: Registries):
        self.registries = registries
        self.questions = _questions(registries)
        self.answers: dict[str, str] = {}
        self.options: dict[str, dict[str, Any]] = {}
        self._typed: dict[tuple[str, str], str] = {}

    def ask(self, key: str) -> None:
        """Ask one question until its answer can be used, then for the options that the answer needs.

        The answer that is given already is the default.
        """
        question = self.questions[key]
        for word, line in question.words.items():
            if line:
                echo(f"  {word}: {line}")
        default = self.answers.get(key, question.default)
        while True:
            answer = prompt(question.text, default=default or None, words=list(question.words), paths=question.paths)
            if not (wrong := question.unusable(answer)) and question.split(answer):
                break
            for word in wrong:
                echo(_refusal(question, word))
            if not question.split(answer):
                echo(f"expected at least one {question.kind}")
            default = question.corrected(answer) or default
        self.answers[key] = answer
        self._ask_options(key, question)

    def ask_which(self, problems: Sequence[str]) -> str:
        """Ask which answer to change; the default is one that the problems depend on."""
        keys = dict.fromkeys(self.questions, "")
        question = Question(text=f"answer to change ({', '.join(keys)})", kind="answer", words=keys)
        default = self._suspect(problems)
        while question.unusable(key := prompt(question.text, default=default, words=list(keys))):
            echo(unknown("answer", key, list(keys)))
            default = question.corrected(key) or default
        return key

    def choices(self, changed: str = "") -> Choices:
        """The answers as choices, with the usual answer to the question ``changed``."""
        usual = {changed: self.questions[changed].default} if changed else {}
        texts: dict[str, Any] = {**self.answers, **usual}
        options = {table: given for table, given in self.options.items() if table.partition(".")[0] != changed}
        encoders = self.questions["encoders"].split(texts.pop("encoders"))
        return Choices(encoders=encoders, options=options, **texts)

    def _suspect(self, problems: Sequence[str]) -> str:
        """Key of the first answer without which one of the problems is gone; the encoders if there is none."""
        for key, question in self.questions.items():
            if question.default and self.answers[key] != question.default:
                try:
                    compose_recipe(self.choices(key), self.registries)
                except RecipeError as error:
                    if set(problems) <= set(error.problems):
                        continue
                return key
        return "encoders"

    def _ask_options(self, key: str, question: Question) -> None:
        self.options = {table: given for table, given in self.options.items() if table.partition(".")[0] != key}
        for index, word in enumerate(question.split(self.answers[key])):
            if question.registry is None or word not in question.registry:
                continue
            component = question.registry[word]
            required = [name for name, field in component.Options.model_fields.items() if field.is_required()]
            given = {name: self._option(word, component.Options, name) for name in required}
            if required:
                self.options[f"{key}.{index}" if question.several else key] = given
                if line := missing_here(component, given):
                    echo(f"  {word}: {line}")

    def _option(self, use: str, options: type[Options], name: str) -> Any:
        """The value of an option without a default. A path that does not exist is accepted when it is given twice."""
        about, is_path = options.model_fields[name].description or "", name in options.path_options()
        default = self._typed.get((use, name))
        while True:
            text = prompt(f"{name} of {use} ({about.rstrip('.')})", default=default, paths=True)
            value, problem = _value(options, name, text)
            if not problem and is_path and not Path(text).exists() and text != default:
                problem = "no such file or folder here. Press Enter to use it all the same"
            default = self._typed[use, name] = text
            if not problem:
                return value
            echo(f"{name} = {text}: {problem}")


def _value(options: type[Options], name: str, text: str) -> tuple[Any, str]:
    """An option's value from text (the text itself, else TOML), and why it cannot be used, or nothing."""
    problem = ""
    for value in (text, parse_value(text)):
        try:
            options.model_validate({name: value})
        except ValidationError as error:  # other options without a default are missing here
            problem = "; ".join(one["msg"] for one in error.errors() if one["loc"][:1] == (name,))
            if problem:
                continue
        return value, ""
    return None, problem


def _refusal(question: Question, word: str) -> str:
    if question.words:
        return unknown(question.kind, word, list(question.words))
    return (
        f"'{word}' cannot be a name: use small letters, digits, dots, dashes and underscores, and begin with a letter "
        f"or digit"
    )


def _questions(registries: Registries) -> dict[str, Question]:
    datasets = registries.datasets
    default_data = next((name for name in datasets.names() if name != "jsonl"), "jsonl")
    return {
        "encoders": _about(registries.encoders, "encoders, in order, separated by spaces", several=True),
        "fusion": _about(registries.fusions, "fusion", default="mlp"),
        "positions": _about(registries.position_schemes, "position scheme", default="sequential"),
        "lm": _about(
            *(registries.language_models, "language model, or a directory, or owner/name on the hub"),
            **{"default": "small-llama", "free": lambda answer: "/" in answer or Path(answer).is_dir(), "paths": True},
        ),
        "moe": Question(
            text=f"layers that become experts ({', '.join(MOE_CHOICES)})",
            kind="choice of layers",
            words=dict.fromkeys(MOE_CHOICES, ""),
            default="sparse",
        ),
        "data": _about(
            *(datasets, "data set, or a folder of .jsonl files"),
            **{"default": default_data, "free": lambda answer: Path(answer).is_dir(), "paths": True},
        ),
        "name": Question(
            text="name of the recipe",
            kind="name",
            words={},
            default="my-recipe",
            free=lambda answer: re.fullmatch(NAME, answer) is not None,
        ),
    }


def _about(registry: Registry[Any], text: str, **more: Any) -> Question:
    """A question about components: each with its summary, and what it lacks on this machine."""
    words = {}
    for entry in registry:
        line = missing_here(entry.component)
        words[entry.name] = entry.component.summary + (f" [{line}]" if line else "")
    return Question(text=text, kind=registry.kind, words=words, registry=registry, **more)
