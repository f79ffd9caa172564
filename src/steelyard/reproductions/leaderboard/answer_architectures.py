"""Does an architecture beat hard sharing, and does it beat weighting at equal cost?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from steelyard.reproductions.leaderboard.board import Board, OverProblems
from steelyard.reproductions.leaderboard.board_answer import (
    ALPHA,
    BASELINE_NAMES,
    BoardAnswer,
    mean_gain,
    points_of,
    problem_by_problem,
    too_few,
    who_beats,
)
from steelyard.reproductions.leaderboard.board_results import BoardProblem
from steelyard.reproductions.leaderboard.gains import row_named
from steelyard.study.analysis.statistics import Array


def family_of_architectures(board: Board) -> dict[str, OverProblems]:
    """Every architecture under the plain sum against hard sharing under it: one family."""
    names = board.named("architecture")
    return board.over_problems(board.table("sum", names), names)


def architectures(board: Board) -> BoardAnswer:
    """Does an architecture under the plain sum beat hard sharing under the plain sum?"""
    question = "Does an architecture under the plain sum beat hard sharing under it?"
    compared = {name: each for name, each in family_of_architectures(board).items() if each.by_problem}
    if not compared:
        return BoardAnswer(question, "Cannot be said: no problem has both an architecture and the plain sum.")
    lines = (problem_by_problem(board, "sum", list(compared)),)
    if reason := too_few(board):
        return BoardAnswer(question, reason, lines)
    return BoardAnswer(question, who_beats(compared, "architecture", BASELINE_NAMES["sum"], len(board.problems)), lines)


def equal_cost(board: Board) -> BoardAnswer:
    """Architectures against the methods that cost no more time per step, problem by problem."""
    question = "Architecture against weighting, at equal cost in time?"
    names = board.named("architecture")
    changes = at_equal_cost(board, names)
    found = board.over_problems(changes, names)
    compared = {name: each for name, each in found.items() if each.by_problem}
    if not compared:
        return BoardAnswer(
            question, "Cannot be said: on no problem does an architecture stand beside a method that costs no more."
        )
    if reason := too_few(board):
        return BoardAnswer(question, reason)
    texts = []
    for name, each in compared.items():
        word = ("better" if mean_gain(each) > 0 else "worse") if each.p_value <= ALPHA else "not told apart"
        texts.append(f"{name} {points_of(each.interval)}, {word}")
    return BoardAnswer(
        question,
        f"Against the middle one of the methods that cost at most as much per step, over problems: {'; '.join(texts)}.",
        ("Intervals are plain 95 % ones; better and worse are said at 5 % for all of these together.",),
    )


def at_equal_cost(board: Board, names: Sequence[str]) -> Array:
    """``[problems, names]``: gain over the plain sum, less that of the middle method that takes no longer."""
    methods = board.named("method")
    ours, theirs = board.table("sum", names), board.table("sum", methods)
    found = np.full(ours.shape, math.nan)
    for place, problem in enumerate(board.problems):
        times = np.array([_seconds_per_step(problem, name) for name in methods])
        for column, name in enumerate(names):
            kept = np.isfinite(theirs[place]) & (times <= _seconds_per_step(problem, name))
            if kept.any():
                found[place, column] = ours[place, column] - np.median(theirs[place, kept])
    return found


def _seconds_per_step(problem: BoardProblem, name: str) -> float:
    row = row_named(problem, name)
    return math.nan if row is None else row.seconds_per_step
