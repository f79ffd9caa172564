"""What a row of one problem gains over another, by seed; and which rows have no number that could be compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from steelyard.reproductions.leaderboard.board_results import BoardProblem, BoardRow, BoardSeed, BoardTask
from steelyard.study.analysis.statistics import Array, relative_changes

Base = Literal["errors", "values"]
FAR_BELOW = 6.0
"""Spans of the middle half of the rows below it: where a row lies that learnt nothing like the others."""
LEAST_BELOW = 0.1
"""Of Δm, below the median: so much it must be besides, where all rows are nearly alike."""


def counted_tasks(problem: BoardProblem) -> tuple[BoardTask, ...]:
    """Those that Δm is about: all, or the main task where the others are there for its sake."""
    return tuple(task for task in problem.tasks if problem.main in (None, task.name))


def row_named(problem: BoardProblem, name: str) -> BoardRow | None:
    return next((row for row in problem.rows if row.name == name), None)


def row_of_group(problem: BoardProblem, group: str) -> BoardRow | None:
    """The single-task row, the plain sum, the best fixed weights: there is one of each at most."""
    return next((row for row in problem.rows if row.group == group), None)


def why_not_judged(problem: BoardProblem, row: BoardRow) -> str:
    """Why a row has no number; empty where it has one.

    A row of which some seeds failed is judged by none: those that are left are the ones that went well.
    """
    if row.failed is not None:
        return f"failed: {row.failed}"
    missing = [seed for seed in problem.seeds if seed not in row.per_seed]
    if missing:
        return f"{len(row.per_seed)} of {len(problem.seeds)} seeds are there"
    for seed, found in sorted(row.per_seed.items()):
        for task in counted_tasks(problem):
            if not math.isfinite(found.test[task.name]):
                return f"no number for {task.name} in seed {seed}"
    return ""


def gains(problem: BoardProblem, row: BoardRow, baseline: BoardRow | None, base: Base = "errors") -> Array:
    """Δm of a row against a baseline, by seed, positive is better: a study's, corrected alike, of main metrics alone.

    The mean over tasks of relative changes, of errors where the best possible value is known. None where either row
    is not there or has no number, or no task has a baseline that can be divided by.

    Args:
        base: "values" compares the metrics themselves, whatever the best possible value is.
    """
    return _relative(problem, row, baseline, lambda seed, task: seed.test[task], base)


def gains_reached(
    problem: BoardProblem, row: BoardRow, baseline: BoardRow | None, epochs: Literal["half", "all"]
) -> Array:
    """The same on validation data, at the best value of each task within so many epochs; none where nobody noted it."""
    rows = [each for each in (row, baseline) if each is not None]
    tasks = {task.name for task in counted_tasks(problem)}
    if any(tasks - set(seed.reached) for each in rows for seed in each.per_seed.values()):
        return np.array([])
    return _relative(problem, row, baseline, lambda seed, task: seed.reached[task][epochs == "all"], "errors")


def _relative(
    problem: BoardProblem,
    row: BoardRow,
    baseline: BoardRow | None,
    value: Callable[[BoardSeed, str], float],
    base: Base,
) -> Array:
    if baseline is None or why_not_judged(problem, row) or why_not_judged(problem, baseline):
        return np.array([])
    per_task = []
    for task in counted_tasks(problem):
        ours, theirs = ([value(each.per_seed[seed], task.name) for seed in problem.seeds] for each in (row, baseline))
        ideal = task.ideal if base == "errors" else None
        change = relative_changes(ours, theirs, higher_is_better=task.higher_is_better, ideal=ideal)
        if change is not None:
            per_task.append(change)
    return np.array(np.mean(per_task, axis=0)) if per_task else np.array([])


def below_trivial(problem: BoardProblem, row: BoardRow) -> list[str]:
    """The tasks in which a row is worse on average than one prediction for all rows."""
    found = []
    for task in counted_tasks(problem):
        if task.trivial is None or why_not_judged(problem, row):
            continue
        mean = float(np.mean([row.per_seed[seed].test[task.name] for seed in problem.seeds]))
        if (mean < task.trivial) if task.higher_is_better else (mean > task.trivial):
            found.append(task.name)
    return found


def far_below(changes: Array) -> list[int]:
    """The places of those that lie far below most of the others."""
    finite = changes[np.isfinite(changes)]
    if len(finite) < 4:
        return []
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    edge = min(low - FAR_BELOW * (high - low), middle - LEAST_BELOW)
    return [place for place, change in enumerate(changes) if change < edge]
