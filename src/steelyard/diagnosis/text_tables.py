"""A diagnosis as columns of plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from steelyard.diagnosis.measurements import Measurements
from steelyard.io.lists_and_counts import columns, percent

MATRIX, ROWS, PAIRS = 8, 20, 5
"""Tasks up to which all cosines are printed; tasks that are printed; pairs printed in place of more."""


def task_table(measured: Measurements) -> str:
    """One line per task, or those of the longest and the shortest gradients of many."""
    order = list(range(len(measured.tasks)))
    if len(order) > ROWS:
        order = measured.norms.nan_to_num(torch.inf).argsort(descending=True, stable=True).tolist()
    titles = ("task", "loss", "gradient norm", "share of step", "cosine with sum")
    values = [
        measured.tasks,
        measured.losses.tolist(),
        measured.norms.tolist(),
        measured.shares.tolist(),
        measured.alignment.tolist(),
    ]
    lines = [
        (
            short(values[0][k]),
            number(values[1][k]),
            number(values[2][k]),
            share(values[3][k]),
            cosine(values[4][k]),
        )
        for k in order
    ]
    left_out = len(lines) - ROWS
    if left_out > 0:
        lines = [*lines[: ROWS // 2], (f".. {left_out} more", "", "", "", ""), *lines[-(ROWS // 2) :]]
    return columns([titles, *lines], numbers=True)


def cosine_table(measured: Measurements) -> str:
    """The lower triangle, or the lowest cosines of many."""
    if len(measured.tasks) <= MATRIX:
        values = measured.cosines.tolist()
        rows = [(short(task), *(cosine(value) for value in values[k][:k])) for k, task in enumerate(measured.tasks)][1:]
        blank = ("",) * len(measured.tasks)
        rows = [(*row, *blank[len(row) :]) for row in rows]
        return columns([("cosine", *(short(task, 12) for task in measured.tasks[:-1])), *rows], numbers=True)
    pairs = measured.pairs
    if not pairs:
        return "No two tasks have a gradient."
    middle = pairs[len(pairs) // 2][2]
    lowest = [(short(i), short(j), cosine(value)) for i, j, value in pairs[:PAIRS]]
    return columns(
        [("lowest cosines of", "", f"{len(pairs)} pairs"), *lowest, ("median", "", cosine(middle))], numbers=True
    )


def affinity_table(name: str, tasks: Sequence[str], values: Tensor) -> str:
    """Row: whose loss; column: who helps; small numbers in a power of ten. Of many tasks the strongest both ways."""
    largest = float(values.nan_to_num(0).abs().max())
    unit = 1.0 if largest >= 0.1 or largest == 0 else 10.0 ** math.floor(math.log10(largest))
    title = f"Affinity: {name}" + ("" if unit == 1 else f", in units of {unit:.0e}")
    cells = [[cosine(value / unit) for value in row] for row in values.tolist()]
    if len(tasks) <= MATRIX:
        rows = [(short(task), *line) for task, line in zip(tasks, cells, strict=True)]
        return f"{title}\n{columns([('helped by', *(short(task, 12) for task in tasks)), *rows], numbers=True)}"
    known = values.isfinite().nonzero().tolist()
    pairs = sorted(known, key=lambda place: -float(values[place[0], place[1]]))
    shown = [*pairs[:PAIRS], *pairs[PAIRS:][-PAIRS:]]
    lines = [(short(tasks[i]), short(tasks[j]), cells[i][j]) for i, j in shown]
    return f"{title}\n{columns([('helped', 'by', f'{len(pairs)} pairs'), *lines], numbers=True)}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def share(value: float) -> str:
    """In whole per cent; nothing where it is unknown."""
    return "-" if value != value else percent(value, ".0f").replace("−0 %", "0 %")


def cosine(value: float) -> str:
    """Two decimals with a sign; nothing where it is unknown."""
    return "-" if value != value else f"{value:+.2f}"


def short(name: str, width: int = 24) -> str:
    """A name cut to a width."""
    return name if len(name) <= width else f"{name[: width - 2]}.."
