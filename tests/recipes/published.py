"""The recipes of published models, and what their headers promise."""

from pathlib import Path

from polyvex.plan import Plan

RECIPES = Path(__file__).parents[2] / "recipes"
RUN_HERE = {"quickstart", "anyres-easyvqa", "smollm2-easyvqa"}
"""These need no data and no weights but what packages bring, and have tests of their own."""

PUBLISHED = sorted(path for path in RECIPES.glob("*.toml") if path.stem not in RUN_HERE)


def header(path: Path) -> dict[str, str]:
    """The comment at the top of a recipe: what stands behind each word with a colon, on one line."""
    said: dict[str, str] = {}
    word = "Title"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return said
        text = line[1:].strip()
        first, colon, rest = text.partition(":")
        if colon and first in ("Source", "Differs", "Cost", "Checked"):
            word, text = first, rest.strip()
        said[word] = f"{said.get(word, '')} {text}".strip()
    raise AssertionError(f"{path} is all comment")


def cost(plan: Plan) -> str:
    """What a header says about cost, by its plan."""
    tokens = f"up to {plan.visual_tokens:,}" if plan.visual_size else f"{plan.visual_tokens:,}"
    encoding = sum(encoder.flops or 0 for encoder in plan.encoders)
    stages = (
        f"{stage.name} {stage.memory_bytes / 2**30:.1f} GiB and {stage.flops / 1e18:.2f} EFLOPs"
        for stage in plan.stages
    )
    return (
        f"{tokens} visual tokens at {plan.visual_positions:,} positions; {', '.join(stages)}; encoding an image "
        f"{encoding / 1e12:.2f} TFLOPs. By plan: float32, {plan.text_tokens} text tokens, "
        "memory without frozen encoders."
    )
