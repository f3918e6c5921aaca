"""A short round of each fuzzer; ``python -m tests.fuzz`` runs the full one."""

from pathlib import Path

import pytest

from . import KINDS
from .command import call, polyvex

SHORT = {"recipes": 12, "lines": 60, "pictures": 60, "runs": 3, "cache": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_every_mutant_is_refused_or_used_completely(kind: str, tmp_path: Path) -> None:
    trials, _ = KINDS[kind]
    found = list(trials(SHORT[kind], 7, tmp_path))
    assert len(found) >= SHORT[kind]
    assert [f"{name}: {fault}" for name, fault in found if fault] == []


def test_the_fuzzers_notice_what_must_not_happen() -> None:
    assert call(lambda: {}["missing"])[1].fault == "failed"
    assert polyvex("plan", "missing.toml").refused
