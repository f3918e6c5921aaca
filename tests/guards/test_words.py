"""One word, one thing: an encoder sees, an expert is a feed-forward network of the language model."""

import re
import tokenize
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "polyvex"
FILES = sorted(SOURCE.rglob("*.py"))

EXPERT_FILES = {
    # What a recipe says of experts, and the checks of it.
    "recipe/check.py",
    "recipe/schema.py",
    # The model puts them in place of FFNs.
    "model/components.py",
    "model/modeling.py",
    "model/adapting.py",
    # A fusion may be made of them.
    "fusion/__init__.py",
    "fusion/expert_choice.py",
    # Stages train them apart, make them, and count what they get.
    "training/parts.py",
    "training/routing.py",
    "training/upcycle.py",
    "training/rehearse.py",
    "training/stages.py",
    "training/evaluate.py",
    "training/abilities.py",
    "training/token_views.py",
    # Configurations of language models name their number.
    "lm/shrink.py",
    # Plans count active parameters; reports draw loads.
    "plan/cost.py",
    "plan/plan.py",
    "records/evaluation.py",
    "report/charts.py",
    "report/collect.py",
    "report/marks.py",
    "report/page.py",
    "report/page_routing.py",
    "report/routing.py",
    "report/routing_certainty.py",
    "report/routing_charts.py",
    "report/routing_paths.py",
    "report/routing_record.py",
    "report/token_views.py",
    # Exports write them in other families' forms.
    "export/card.py",
    "export/families.py",
    "export/reasons.py",
    "export/weights.py",
    # The kit holds routers to their contract.
    "testing/routers.py",
}
"""Files outside ``polyvex/moe`` where experts of the language model are the subject."""

FOREIGN = {"tower", "backbone", "featurizer"}
"""Other people's words for an encoder."""


def words_of(path: Path) -> dict[str, int]:
    """Words inside the names of a file (``num_experts`` is ``num`` and ``experts``), with the line of the first."""
    found: dict[str, int] = {}
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.NAME:
                spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", token.string)
                for word in spaced.lower().split("_"):
                    found.setdefault(word, token.start[0])
    return found


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_the_source_is_found() -> None:
    assert len(FILES) > 50


def test_words_are_found_inside_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"expert in prose"\nNUM_EXPERTS = GatedExpert().readExpertLoad  # expert\n')
    assert words_of(tmp_path / "a.py") == dict.fromkeys(["num", "experts", "gated", "expert", "read", "load"], 2)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_expert_means_an_expert_of_the_language_model(path: Path) -> None:
    if "moe" in path.parts or name_of(path) in EXPERT_FILES:
        return
    found = {word: line for word, line in words_of(path).items() if word in ("expert", "experts")}
    assert not found, f"{path}:{min(found.values())}: an encoder is no expert; or add the file to EXPERT_FILES"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_an_encoder_is_called_encoder(path: Path) -> None:
    found = {word: line for word, line in words_of(path).items() if word in FOREIGN}
    assert not found, f"{path}:{min(found.values())}: say encoder, not {' or '.join(found)}"


@pytest.mark.parametrize("name", sorted(EXPERT_FILES))
def test_the_list_of_exceptions_has_no_file_that_is_gone(name: str) -> None:
    assert (SOURCE / name).is_file()
