"""No code from checkpoints: every load by an Auto class says so, and pickles are read as weights only."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "polyvex", *sorted(ROOT.glob("plugins/*/src")), ROOT / "benchmarks"]
LOADS = ("from_pretrained", "from_config")


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Each call of a method in the sources: where it stands, the call, and the object as text."""
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node, ast.unparse(node.func.value)


def says(call: ast.Call, key: str, value: bool) -> bool:
    return any(
        one.arg == key and isinstance(one.value, ast.Constant) and one.value.value is value for one in call.keywords
    )


def is_ours(owner: str) -> bool:
    """Whether a class forbids code by itself, in its own ``from_pretrained``, or reads no class names at all."""
    return owner.startswith("Polyvex") or owner in ("Model", "parent", "GenerationConfig") or "CLIPVisionModel" in owner


def test_every_load_refuses_remote_code() -> None:
    found = [(where, owner, call) for where, call, owner in calls() if call.func.attr in LOADS]  # type: ignore[attr-defined]
    assert len(found) > 15
    loose = [
        f"{where} {owner}"
        for where, owner, call in found
        if not is_ours(owner) and not says(call, "trust_remote_code", False)
    ]
    assert loose == []


def test_pickles_are_read_as_weights_only() -> None:
    found = [(where, call) for where, call, owner in calls() if f"{owner}.{call.func.attr}" == "torch.load"]  # type: ignore[attr-defined]
    assert found
    assert [where for where, call in found if not says(call, "weights_only", True)] == []


def test_no_source_unpickles_or_reads_classes_from_the_hub() -> None:
    banned = ("pickle.load", "pickle.loads", "torch.hub.load", "joblib.load", "dill.load")
    assert [where for where, call, owner in calls() if f"{owner}.{call.func.attr}" in banned] == []  # type: ignore[attr-defined]
