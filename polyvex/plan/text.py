"""A plan as text for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyvex.plan.plan import Plan


def plan_text(plan: "Plan") -> str:
    """Tables of encoders and stages, then sizes, notes and problems."""
    largest = f" of {plan.visual_size[1]}x{plan.visual_size[0]} pixels, the costliest shape" if plan.visual_size else ""
    begin = [f"starts from {plan.start}"] if plan.start else []
    lines = [f"plan of {plan.recipe}", *begin, "", f"encoders (per image{largest}, in the order that the model sees)"]
    rows = [
        ["name", "image", "tokens", "after fusion", "grid", "positions", "width", "parameters", "GFLOPs", "licence"]
    ]
    for budget in plan.encoders:
        rows.append(
            [
                budget.name,
                budget.image,
                str(budget.tokens_in),
                _own(budget.tokens_out),
                budget.grid,
                _own(budget.positions),
                str(budget.dim),
                _count(budget.parameters),
                f"{budget.flops / 1e9:.2f}" if budget.flops else "?",
                budget.license,
            ]
        )
    lines += _table(rows)
    size = "? parameters" if plan.fusion_parameters is None else f"{_count(plan.fusion_parameters)} parameters"
    lines += [
        "",
        f"fusion:  {plan.fusion}, {size}; a tile becomes {_runs(plan.fusion_grids)}",
        f"context: {_visual(plan)} visual + about {plan.text_tokens} text tokens of {plan.context or '?'}; one "
        f"image takes {plan.visual_positions} positions",
        f"cache:   {_bytes(plan.cache_bytes)} for {plan.images:,} images, "
        f"{_bytes(plan.cached_bytes)} of it there, in "
        f"{plan.cache_folder}",
        "",
        "stages (connector, language model and encoders that learn; memory of weights, gradients, optimizer and",
        "activations at float32; libraries and cached tokens come on top, frozen encoders do not)",
    ]
    rows = [["stage", "steps", "total", "active", "trainable", "memory", "arithmetic"]]
    for cost in plan.stages:
        counts = [_count(cost.total), _count(cost.active), _count(cost.trainable)]
        rows.append([cost.name, str(cost.steps), *counts, _bytes(cost.memory_bytes), _flops(cost.flops)])
    lines += _table(rows)
    lines += ["", *(f"note: {note}" for note in plan.notes)] if plan.notes else []
    lines += ["", *(f"MISSING: {one}" for one in plan.missing)] if plan.missing else []
    lines += ["", *(f"PROBLEM: {problem}" for problem in plan.problems)] if plan.problems else ["", _verdict(plan)]
    return "\n".join(lines)


def _verdict(plan: "Plan") -> str:
    return "no problem found; get what is missing before training" if plan.missing else "no problem found"


def _visual(plan: "Plan") -> str:
    many = plan.images_per_sample > 1
    return f"up to {plan.images_per_sample} images of {plan.visual_tokens}" if many else str(plan.visual_tokens)


def _runs(grids: list[str]) -> str:
    told = ", ".join(dict.fromkeys(f"grid {grid}" if grid != "none" else "tokens without a grid" for grid in grids))
    return f"one run ({told})" if len(grids) == 1 else f"{len(grids)} runs ({told})"


def _own(count: int | None) -> str:
    """An encoder's own share; none where the fusion merges encoders."""
    return "merged" if count is None else str(count)


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _flops(number: int) -> str:
    for size, unit in ((1e21, "ZFLOPs"), (1e18, "EFLOPs"), (1e15, "PFLOPs"), (1e12, "TFLOPs")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number / 1e9:.2f} GFLOPs"


def _bytes(number: int) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
