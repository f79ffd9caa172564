"""A diagnosis as columns of plain text."""

from __future__ import annotations

import torch

from steelyard.diagnosis.measurements import Measurements

MATRIX, ROWS, PAIRS = 8, 20, 5
"""Tasks up to which all cosines are printed; tasks that are printed; pairs printed in place of more."""


def task_table(found: Measurements) -> str:
    """One line per task, or those of the longest and the shortest gradients of many."""
    order = list(range(len(found.tasks)))
    if len(order) > ROWS:
        order = found.norms.nan_to_num(torch.inf).argsort(descending=True, stable=True).tolist()
    titles = ("task", "loss", "gradient norm", "share of step", "cosine with sum")
    columns = [
        found.tasks,
        found.losses.tolist(),
        found.norms.tolist(),
        found.shares.tolist(),
        found.alignment.tolist(),
    ]
    lines = [
        (
            short(columns[0][k]),
            number(columns[1][k]),
            number(columns[2][k]),
            percent(columns[3][k]),
            cosine(columns[4][k]),
        )
        for k in order
    ]
    left_out = len(lines) - ROWS
    if left_out > 0:
        lines = [*lines[: ROWS // 2], (f".. {left_out} more", "", "", "", ""), *lines[-(ROWS // 2) :]]
    return aligned([titles, *lines])


def cosine_table(found: Measurements) -> str:
    """The lower triangle, or the lowest cosines of many."""
    if len(found.tasks) <= MATRIX:
        values = found.cosines.tolist()
        rows = [(short(task), *(cosine(value) for value in values[k][:k])) for k, task in enumerate(found.tasks)][1:]
        blank = ("",) * len(found.tasks)
        rows = [(*row, *blank[len(row) :]) for row in rows]
        return aligned([("cosine", *(short(task, 12) for task in found.tasks[:-1])), *rows])
    pairs = found.pairs
    if not pairs:
        return "No two tasks have a gradient."
    middle = pairs[len(pairs) // 2][2]
    lowest = [(short(i), short(j), cosine(value)) for i, j, value in pairs[:PAIRS]]
    return aligned([("lowest cosines of", "", f"{len(pairs)} pairs"), *lowest, ("median", "", cosine(middle))])


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A fraction as a percentage; nothing where it is unknown."""
    return "-" if value != value else f"{100 * value:.0f} %".replace("-0 %", "0 %")


def cosine(value: float) -> str:
    """Two decimals with a sign; nothing where it is unknown."""
    return "-" if value != value else f"{value:+.2f}"


def short(name: str, width: int = 24) -> str:
    """A name cut to a width."""
    return name if len(name) <= width else f"{name[: width - 2]}.."


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows of text as columns, the first to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
