"""Only one module writes to the terminal, so that no text reaches it with its escape sequences."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "polyvex"
WRITER = SOURCE / "cli" / "output.py"
OTHERS = {SOURCE / "hooks" / "watch.py", SOURCE / "testing" / "imports.py"}
"""Files that pass on what the code of a plugin prints while it is imported, or that write to another process."""
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != WRITER and path not in OTHERS)
WRITERS = {"echo", "secho", "prompt", "confirm", "print_exc", "print_exception", "Console"}
"""Functions of typer, click, rich and traceback that write, which only the module itself may call."""


def writes(tree: ast.Module) -> list[str]:
    """Calls and references that reach the terminal past the module."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("typer", "click", "traceback", "rich") and node.attr in WRITERS:
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Attribute) and node.attr == "write" and isinstance(node.value, ast.Attribute):
            if node.value.attr in ("stdout", "stderr"):
                found.append(f"{node.value.attr}.write")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "Console"):
            found.append(node.func.id)
        elif isinstance(node, ast.ImportFrom) and node.module in ("typer", "click"):
            found += [alias.name for alias in node.names if alias.name in WRITERS]
    return found


def test_the_guard_sees_every_way_to_write() -> None:
    code = "typer.echo(1)\nclick.secho\nsys.stdout.write(1)\nprint(1)\nfrom typer import prompt\nConsole()"
    assert len(writes(ast.parse(code))) == 6
    assert writes(ast.parse(WRITER.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_only_the_output_module_writes_to_the_terminal(path: Path) -> None:
    assert not writes(ast.parse(path.read_text(encoding="utf-8")))


def test_progress_bars_are_made_in_one_place() -> None:
    makers = [
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("tqdm", "trange")
    ]
    assert makers == ["progress.py"]
