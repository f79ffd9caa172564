"""Rows that are one training under several names: methods whose formulas agree for the tasks at hand."""

from __future__ import annotations

import math

from steelyard.reproductions.leaderboard.board_results import BoardProblem, BoardRow

DIGITS = 1e-6  # of rounding, which adds up differently in different code


def is_same(one: BoardRow, other: BoardRow) -> bool:
    """Whether they have the same seeds and, to six digits, the same test values of every task."""
    if not one.per_seed or set(one.per_seed) != set(other.per_seed):
        return False
    return all(
        math.isclose(value, other.per_seed[seed].test[task], rel_tol=DIGITS, abs_tol=1e-12)
        for seed, found in one.per_seed.items()
        for task, value in found.test.items()
    )


def same_rows(problem: BoardProblem) -> list[tuple[str, ...]]:
    """The rows that are one training, each such group once, in the order of the rows."""
    groups: list[list[BoardRow]] = []
    for row in problem.rows:
        for group in groups:
            if is_same(group[0], row):
                group.append(row)
                break
        else:
            groups.append([row])
    return [tuple(row.name for row in group) for group in groups if len(group) > 1]
