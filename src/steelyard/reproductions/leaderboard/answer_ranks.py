"""Do rows differ in rank, and would they elsewhere?"""

from __future__ import annotations

import math

import numpy as np

from steelyard.io.lists_and_counts import listed
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import ALPHA, NAMED, BoardAnswer, too_few
from steelyard.reproductions.leaderboard.ranks import critical_difference, friedman
from steelyard.reproductions.leaderboard.stability import Stability


def rank_differences(board: Board) -> BoardAnswer:
    """Friedman and Nemenyi."""
    question = "Do rows differ in rank?"
    problems, rows = board.ranks.shape
    if reason := too_few(board):
        return BoardAnswer(question, reason)
    if rows < 2:
        return BoardAnswer(question, "Cannot be said: fewer than two rows were run on every problem.")
    test, difference = friedman(board.ranks), critical_difference(rows, problems)
    average = board.ranks.mean(0)
    best = int(np.argmin(average))
    apart = int((average - average[best] > difference).sum())
    line = (
        f"The best average rank is that of {board.ranked[best]}, {average[best]:.1f}; "
        f"{apart} of the other {rows - 1} rows are told from it."
    )
    word = "They do" if test.p_value <= ALPHA else "Not shown"
    return BoardAnswer(
        question,
        f"{word} (Friedman's test in the form of Iman and Davenport: F = {test.statistic:.2f} of {test.freedoms[0]} "
        f"and {test.freedoms[1]} degrees of freedom, p = {test.p_value:.2g}); two rows are told apart where their "
        f"average ranks differ by more than {difference:.1f} of {rows} (Nemenyi, 5 %).",
        (line,),
    )


def rank_stability(board: Board, found: Stability) -> BoardAnswer:
    question = "Would ranks be the same with other problems, other seeds, half the budget, another base?"
    halves = {
        "between halves of the problems": found.half_problems,
        "between halves of the seeds": found.half_seeds,
        "between half of the epochs and all, on validation data": found.half_epochs,
        "between errors and values as the base of Δm": found.other_base,
    }
    said = [f"{value:.2f} {name}" for name, value in halves.items() if math.isfinite(value)]
    lines = (f"Rank correlations: {', '.join(said)}.",) if said else ()
    if reason := too_few(board):
        return BoardAnswer(question, reason, lines)
    stable, rows = found.stable, len(found.ranges)
    widest = sorted(each.high - each.low for each in found.ranges.values())
    names = f": {listed(stable[:NAMED])}" if stable and len(stable) <= NAMED else ""
    middle = f"half of the ranges span {widest[rows // 2]} places or more" if rows else "there is no row"
    return BoardAnswer(
        question, f"{len(stable)} of {rows} ranks are stable{names}; the others are printed as ranges, {middle}.", lines
    )
