"""What a block changes in the process, and what it prints, is observed."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from polyvex.catalog import diagnose, plugin_rows
from polyvex.fusion import MLPFusion
from polyvex.hooks import hookimpl, manager
from polyvex.hooks.manager import load_registries
from polyvex.hooks.watch import watch

from .test_manager import FakePoint


@pytest.fixture(autouse=True)
def everything_is_put_back() -> Iterator[None]:
    state, numpy_state, directory, path = torch.get_rng_state(), np.random.get_state(), os.getcwd(), list(sys.path)
    python_state, level, gelu = random.getstate(), logging.root.level, torch.nn.functional.gelu
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        yield
    torch.set_rng_state(state)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.nn.functional.gelu = gelu
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    os.chdir(directory)
    os.environ.pop("POLYVEX_TEST_WATCH", None)
    sys.path[:] = path
    logging.root.setLevel(level)


CHANGES: dict[str, Callable[[], Any]] = {
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's random state": lambda: torch.manual_seed(1234),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's settings": lambda: torch.use_deterministic_algorithms(True),
    "functions of torch": lambda: setattr(torch.nn.functional, "gelu", torch.relu),
    "numpy's random state": lambda: np.random.seed(1234),
    "Python's random state": lambda: random.seed(1234),
    "the warning filters": lambda: warnings.simplefilter("ignore"),
    "the root logger": lambda: logging.root.setLevel(logging.DEBUG),
    "os.environ": lambda: os.environ.update(POLYVEX_TEST_WATCH="1"),
    "the working directory": lambda: os.chdir("/"),
    "sys.path": lambda: sys.path.append("/no/such/folder"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_observed(name: str) -> None:
    with watch() as watched:
        CHANGES[name]()
    assert len(watched.effects) == 1
    assert watched.effects[0].startswith(f"changes {name}")


def test_a_quiet_block_has_no_effect_and_takes_time() -> None:
    with watch() as watched:
        sum(range(1000))
    assert watched.effects == []
    assert watched.seconds > 0


def test_printed_text_goes_to_stderr_and_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with watch() as watched:
        print("Welcome to mine!\nmore")
        kept = sys.stdout
    kept.write("later")
    assert watched.effects == ["prints 'Welcome to mine!'"]
    assert capsys.readouterr() == ("", "Welcome to mine!\nmore\nlater")


def test_time_and_effects_of_a_plugin_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of its hook, which may import what the module does not."""

    def register_fusions() -> dict[str, type]:
        torch.manual_seed(99)
        return {"mine": MLPFusion}

    def load() -> ModuleType:
        os.environ["POLYVEX_TEST_WATCH"] = "1"
        module = ModuleType("mine")
        module.register_fusions = hookimpl(register_fusions)  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(manager, "entry_points", lambda group: [FakePoint("mine", load)])
    registries = load_registries()
    [row] = [row for row in plugin_rows(registries) if row["name"] == "mine"]
    assert row["state"] == "loaded"
    assert row["import_s"] >= 0
    assert row["effects"] == ["changes torch's random state", "changes os.environ"]
    built_in = [row["import_s"] for row in plugin_rows(registries) if row["name"] != "mine"]
    assert set(built_in) == {None}
    [warning] = [found for found in diagnose(registries) if found["state"] == "warning"]
    assert (
        "plugin mine (polyvex-mine 9.9): its import changes torch's random state; changes os.environ" in warning["what"]
    )


def test_printed_control_characters_reach_the_terminal_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    with watch():
        print("a\x1b[2Jb")
    assert capsys.readouterr().err == "a\\x1b[2Jb\n"
