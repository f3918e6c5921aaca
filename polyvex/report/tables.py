"""An ablation's figures as text: CSV for programs, Markdown for people, aligned columns for terminals."""

import csv
import io
import json
from collections.abc import Sequence

from polyvex.ablation.axes import plain
from polyvex.ablation.compare import Result
from polyvex.ablation.table import result_rows
from polyvex.printable import csv_cell, markdown, one_line
from polyvex.report.grid import HOW, AblationRecord, verdict

NUMBERS = ("visual_tokens", "positions_used", "questions", "accuracy", "low", "high")
DIFFERENCE = ("difference", "difference_low", "difference_high")


def csv_text(ablation: AblationRecord) -> str:
    """One line per combination with plain numbers (shares from 0 to 1), and one column per axis.

    ``seeds`` and ``by_seed`` are JSON lists. The first combination has no difference: those cells are empty.
    """
    axes = axis_names(ablation.results)
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, ["cell", *axes, "metric", *NUMBERS, *DIFFERENCE, "seeds", "by_seed"], lineterminator="\n"
    )
    writer.writerow({name: csv_cell(name) for name in writer.fieldnames})
    for result in ablation.results:
        numbers = (result.visual_tokens, result.positions, result.questions, result.accuracy, *result.interval)
        gap = (result.difference, *result.difference_interval) if result.difference_interval else ("", "", "")
        writer.writerow(
            {
                "cell": csv_cell(result.label),
                **{name: csv_cell(plain(value)) for name, value in result.values.items()},
                "metric": csv_cell(result.metric),
                **dict(zip(NUMBERS, numbers, strict=True)),
                **dict(zip(DIFFERENCE, gap, strict=True)),
                "seeds": json.dumps(result.seeds),
                "by_seed": json.dumps(result.by_seed),
            }
        )
    return stream.getvalue()


def axis_names(results: Sequence[Result]) -> list[str]:
    """The axes of an ablation, in its order."""
    return list(dict.fromkeys(name for result in results for name in result.values))


def markdown_text(ablation: AblationRecord, *, loud: Sequence[str]) -> str:
    """The table for a README or a paper's notes; what must not be overlooked stands above, how it is made below."""
    rows = result_rows(ablation.results)
    lines = [f"**{markdown(sentence)}**\n" for sentence in loud]
    if rows:
        heads = list(rows[0])
        lines += [_markdown_row(heads), "| " + " | ".join(["---", *["---:"] * (len(heads) - 1)]) + " |"]
        lines += [_markdown_row([row[head] for head in heads]) for row in rows]
        lines.append("")
    return "\n".join([*lines, markdown(verdict(ablation.results)), "", HOW, ""])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown(cell) for cell in cells) + " |"


def columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """Rows as aligned text; all columns but the first to the right."""
    heads = list(rows[0])
    cells = [heads, *([one_line(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(heads))]
    return ["  ".join(_aligned(line, widths)).rstrip() for line in cells]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
