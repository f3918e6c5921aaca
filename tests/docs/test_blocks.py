"""Every block of the docs does what the page shows: Python runs, commands print that, TOML reads.

A page runs from top to bottom in one empty folder, its Python blocks in one namespace, as a reader would do it. In
what a command prints, numbers, digests and spaces may differ from the page; a line ``…`` stands for any lines, and
``…`` inside a line for any text.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from polyvex.cli import run as run_polyvex
from polyvex.errors import WeightsError
from polyvex.hooks.manager import Registries
from polyvex.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
FENCE = re.compile(r"^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

NOT_RUN = {
    "hf download": "needs a network",
    "make ": "each target takes minutes, and `make test` would run this test",
    "pip install": "tests install nothing here; test_plugin_page.py installs the page's plugin elsewhere",
    ". .venv/bin/activate": "goes with make",
    "polyvex plugins test brightness": "needs the page's plugin; tests/scaffold runs it with one of each kind",
    "polyvex compose --encoder brightness": "needs the page's plugin, too",
    "polyvex compose --encoder gray-patch": "needs the page's plugin; test_plugin_page.py runs it with that installed",
}
"""How commands that are not run begin, and why."""

NO_WEIGHTS = {"polyvex-sam": "its block encodes with Segment Anything's checkpoint, which no package has"}
"""Pages whose Python runs up to the weights that are not on this machine, and why."""

STAGES = {"language": 20, "align": 20, "tune": 50, "experts": 20}
SHORTER = {
    "polyvex train recipes/quickstart.toml": [
        *("data.train_limit=200", "evaluation.limit=40"),
        *(f"stages.{name}.steps={steps}" for name, steps in STAGES.items()),
    ],
    "polyvex ablate recipes/quickstart.toml": [
        *("data.train_limit=200", 'ablation.set={"evaluation.limit"=40, "evaluation.after"="last_stage"}'),
        *(f"stages.{name}.steps={steps}" for name, steps in STAGES.items()),
    ],
}
"""Commands that take minutes on the page: the same with fewer steps and questions. Words stay, numbers differ."""

ANY_ANSWER = "polyvex ask runs/quickstart"
"""A model that was trained for seconds may say something else than the page's."""

CACHE = "~/.cache/polyvex/tokens"
"""The cache's folder as pages show it."""


def place(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        return f"{place(self.page)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("text")) + 1, found["kind"], found["text"])
        for found in FENCE.finditer(text)
    ]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what the page shows below it. A command goes on after a backslash."""
    text = block.text.replace("\\\n", " ")
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield " ".join(command.split()), shown


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_blocks_run_in_order(page: Path, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks(page):
        if block.kind == "python" and page.parent.name in NO_WEIGHTS:
            with pytest.raises(WeightsError, match="To get them"):
                run_python(block, module)
        elif block.kind == "python":
            run_python(block, module)
        elif block.kind == "console":
            run_console(block, cache_folder)


def run_python(block: Block, module: ModuleType) -> None:
    code = "\n" * (block.line - 1) + block.text  # so that a traceback tells the page's lines
    exec(compile(code, str(block.page), "exec"), module.__dict__)


def run_console(block: Block, cache: Path) -> None:
    for command, shown in commands(block):
        if not command.startswith(tuple(NOT_RUN)):
            printed = run_command(command + shorter(command), block)
            if shown.strip() and not command.startswith(ANY_ANSWER):
                printed = printed.replace(str(cache), CACHE).replace(str(Path.cwd()), ".")
                assert matches(shown, printed), f"{block.place}: $ {command}\nthe page shows\n{shown}\ngot\n{printed}"


def shorter(command: str) -> str:
    """What makes a command shorter, as further options."""
    changes = next((changes for start, changes in SHORTER.items() if command.startswith(start)), [])
    return "".join(f" --set {shlex.quote(change)}" for change in changes)


def run_command(command: str, block: Block) -> str:
    """What a command prints. polyvex runs in this process, since importing torch takes longer than most commands."""
    words = shlex.split(command)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if words[0] != "polyvex":
        here = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # as after `activate`
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False, env=here)
        code, printed = done.returncode, done.stdout + done.stderr
    else:
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            for name, value in settings.items():
                patch.setenv(name, value)
            code = run_polyvex(words[1:])
        printed = out.getvalue()
    wrong = "error:" in block.text or "PROBLEM:" in block.text
    assert (code != 0) == wrong, f"{block.place}: $ {command}\nexit code {code}\n{printed}"
    return printed


def matches(shown: str, printed: str) -> bool:
    lines = [line for line in normal(shown) if line]
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in normal(printed) if line)) is not None


def normal(text: str) -> list[str]:
    text = re.sub(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{12,64}\b", "#", text)
    text = re.sub(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( (k|M|G|B|KiB|MiB|GiB)\b)?", "#", text)
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_toml_blocks_can_be_read(page: Path, registries: Registries):
    """Whole recipes (they begin with a name) are checked as such."""
    for block in blocks(page):
        if block.kind == "toml":
            data: dict[str, Any] = tomllib.loads(block.text)
            if "name" in data:
                parse_recipe(data, registries=registries, source=block.place)


def test_fences_are_of_known_kinds():
    """A block of another kind, or one that is indented, would not be run by anybody."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        opened = re.findall(r"^([ ]*)```([a-z]*)", text, flags=re.MULTILINE)
        assert {kind for _, kind in opened} <= {"", "python", "console", "toml", "json", "mermaid", "text"}, page.name
        assert not [indent for indent, _ in opened if indent], f"{page.name}: an indented block is not run"
        assert len(opened) == 2 * len(blocks(page)), f"{page.name}: a block is not read by this test"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("accuracy 37.5% of 16", "accuracy 50.0%  of 8", True),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\nd", "a\nb\nd", False),
        ("found … in", "found 3 things in", True),
        ("red", "blue", False),
        ("175.0 KiB in ./x", "12 B in ./x", True),
    ],
)
def test_what_counts_as_the_same(shown: str, printed: str, same: bool):
    assert matches(shown, printed) is same


def test_every_reason_is_needed():
    """A command that no page has any longer must not stay excused."""
    found = [
        command for page in PAGES for block in blocks(page) if block.kind == "console" for command, _ in commands(block)
    ]
    for start in (*NOT_RUN, *SHORTER, ANY_ANSWER):
        assert any(command.startswith(start) for command in found), f"no page has a command that begins with '{start}'"
