"""What does a gain cost: the rows that none beats in time at no less gain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import BoardAnswer, points, too_few
from steelyard.reproductions.leaderboard.gains import row_of_group
from steelyard.study.analysis.statistics import interval
from steelyard.study.judgement import Interval


@dataclass(frozen=True)
class FrontRow:
    """A row by what it costs and gains, against the plain sum."""

    name: str
    time: float
    memory: float
    gain: Interval
    on_front: bool


def front(board: Board) -> list[FrontRow]:
    """Rows with a number on every problem; on the front are those ahead that no other beats in time at no less gain."""
    if not any(row_of_group(problem, "sum") for problem in board.problems):
        return []
    names = board.named("method", "architecture", "sum", "fixed")
    changes = board.table("sum", names)
    rows = []
    for column, name in enumerate(names):
        time, memory = board.costs(name)
        gain = interval(changes[:, column])
        if np.isfinite(changes[:, column]).all() and math.isfinite(time) and gain is not None:
            rows.append((name, time, memory, gain))
    return [
        FrontRow(
            *row,
            on_front=row[3].mean > 0  # what is cheaper than the plain sum and behind it has no gain to pay for
            and not any(
                (other[1] <= row[1] and other[3].mean >= row[3].mean)
                and (other[1] < row[1] or other[3].mean > row[3].mean)
                for other in rows
            ),
        )
        for row in rows
    ]


def cost_front(board: Board) -> BoardAnswer:
    """Which rows are worth their time."""
    question = "What does a gain cost?"
    found = sorted((row for row in front(board) if row.on_front), key=lambda row: row.time)
    if not front(board):
        return BoardAnswer(question, "Cannot be said: no row has a number and a time on every problem.")
    texts = [f"{row.name} {row.time:.2f} ×, {points(row.gain)}" for row in found]
    memory = [row for row in front(board) if math.isfinite(row.memory)]
    most = max(memory, key=lambda row: row.memory, default=None)
    lines = [] if most is None else [f"The most memory takes {most.name}, {most.memory:.2f} × that of the plain sum."]
    if reason := too_few(board):
        lines.append(f"Which rows are better than others: {reason[0].lower()}{reason[1:]}")
    if not found:
        return BoardAnswer(question, "No row that has a number everywhere gains over the plain sum.", tuple(lines))
    return BoardAnswer(
        question,
        "Ahead of the plain sum in mean Δm, and such that none gains as much in less time per step (× the plain "
        f"sum's): {'; '.join(texts)}.",
        tuple(lines),
    )
