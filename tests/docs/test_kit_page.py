"""docs/plugins-new.md lists the checks that are made, in their order, and the kinds that can be written."""

import re
from pathlib import Path
from typing import get_args

import pytest

from polyvex.hooks.manager import KINDS, Registries
from polyvex.scaffold import Kind
from polyvex.testing.plugins import check_plugin

PAGE = (Path(__file__).parents[2] / "docs" / "plugins-new.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### ([\w ]+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))

EXAMPLES = {
    "encoder": ("basics", "color-grid"),
    "reducer": ("polyvex.reducers", "perceiver"),
    "fusion": ("polyvex.fusion", "mlp"),
    "position scheme": ("polyvex.positions", "share_row_col"),
    "router": ("polyvex.moe", "top_k"),
    "data set": ("polyvex.data", "jsonl"),
    "metric": ("polyvex.evaluation", "exact_match"),
    "language model": ("polyvex.lm", "small-llama"),
}
"""A plugin and a component of each kind that pass."""


def test_every_kind_has_a_section():
    assert set(SECTIONS) == set(KINDS.values()) == set(EXAMPLES)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_table_lists_the_checks_in_order(kind: str, registries: Registries, tiny_data: Path):
    plugin, component = EXAMPLES[kind]
    changes = [f"jsonl.folder={tiny_data}"] if component == "jsonl" else []

    found = list(check_plugin(registries, plugin, components=[component], changes=changes))

    assert [str(outcome) for outcome in found if outcome.state != "ok"] == []
    made = [re.sub(r" of (train|test)$", "", outcome.check) for outcome in found]
    assert list(dict.fromkeys(made)) == re.findall(r"^\| ((?!check|---)[^|]+?) \|", SECTIONS[kind], flags=re.MULTILINE)


def test_the_page_names_every_kind_that_can_be_written():
    [sentence] = re.findall(r"^Kinds are (.*?)\. ", PAGE, flags=re.MULTILINE)

    assert tuple(re.findall(r"`([\w-]+)`", sentence)) == get_args(Kind)
