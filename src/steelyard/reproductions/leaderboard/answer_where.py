"""Where do methods gain more: the problems divided by what they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from steelyard.io.lists_and_counts import counted
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import ALPHA, BoardAnswer, points, points_of
from steelyard.reproductions.leaderboard.board_results import BoardProblem
from steelyard.study.analysis.statistics import LEVEL, holm, interval
from steelyard.study.judgement import Interval

MANY_TASKS = 5
SCALES_APART = 10.0
EACH_SIDE = 3
"""Problems that must be on either side of a question that divides them."""


@dataclass(frozen=True)
class Divide:
    """A question that divides problems into those where it is so, and the others; None where a problem does not say."""

    name: str
    holds: Callable[[BoardProblem], bool | None]


def _fact(name: str, holds: Callable[[float], bool]) -> Callable[[BoardProblem], bool | None]:
    return lambda problem: holds(problem.facts[name]) if name in problem.facts else None


DIVIDES = (
    Divide(
        f"losses start {SCALES_APART:g} times apart or more",
        _fact("loss_scales", lambda scales: scales >= SCALES_APART),
    ),
    Divide(f"there are {MANY_TASKS} tasks or more", lambda problem: len(problem.tasks) >= MANY_TASKS),
    Divide("labels are missing", _fact("missing_labels", lambda share: share > 0)),
    Divide("a main task has auxiliaries", lambda problem: problem.main is not None),
)


@dataclass(frozen=True)
class Sides:
    """What the middle one of all methods gains over the plain sum, by problem, on both sides of a question."""

    where: list[float]
    elsewhere: list[float]
    unknown: int

    @property
    def decidable(self) -> bool:
        return min(len(self.where), len(self.elsewhere)) >= EACH_SIDE

    def difference(self) -> tuple[Interval, float]:
        """Welch's interval of where − elsewhere, and its two-sided p-value."""
        ours, theirs = np.array(self.where), np.array(self.elsewhere)
        parts = ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)
        error, mean = math.sqrt(sum(parts)), float(ours.mean() - theirs.mean())
        if error == 0.0:
            return Interval(mean, mean, mean), float(mean == 0.0)
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(ours) - 1) + parts[1] ** 2 / (len(theirs) - 1))
        half = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
        return Interval(mean, mean - half, mean + half), float(2 * special.stdtr(freedom, -abs(mean) / error))


def sides(board: Board, divide: Divide) -> Sides:
    changes = board.table("sum", board.named("method"))
    sorted_in: dict[bool, list[float]] = {True: [], False: []}
    unknown = 0
    for problem, row in zip(board.problems, changes, strict=True):
        known = row[np.isfinite(row)]
        holds = divide.holds(problem)
        if holds is None or len(known) == 0:
            unknown += 1
        else:
            sorted_in[holds].append(float(np.median(known)))
    return Sides(sorted_in[True], sorted_in[False], unknown)


def where(board: Board) -> list[BoardAnswer]:
    """Where weighting pays: every division of the problems; Holm-adjusted over those that could be asked."""
    found = {divide.name: sides(board, divide) for divide in DIVIDES}
    asked = {name: each.difference() for name, each in found.items() if each.decidable}
    adjusted = holm({name: p_value for name, (_, p_value) in asked.items()})
    said = []
    for name, each in found.items():
        question = f"Do methods gain more where {name}?"
        if name not in asked:
            unknown = f", {each.unknown} do not say" if each.unknown else ""
            said.append(
                BoardAnswer(
                    question,
                    f"Cannot be said from {counted(len(board.problems), 'problem')}: it is so on {len(each.where)}, "
                    f"not on {len(each.elsewhere)}{unknown}; {EACH_SIDE} of each are needed.",
                )
            )
            continue
        difference, p_value = asked[name][0], adjusted[name]
        answer = (
            f"{'More' if difference.mean > 0 else 'Less'}: by {points(difference)} of Δm over the plain sum"
            if p_value <= ALPHA
            else f"Not shown: the difference is {points(difference)} of Δm over the plain sum"
        )
        ours, theirs = (points_of(interval(side)) for side in (each.where, each.elsewhere))
        line = (
            f"The middle one of all methods gains {ours} in the mean of {len(each.where)} problems where it is so, "
            f"{theirs} in that of {len(each.elsewhere)} others."
        )
        said.append(BoardAnswer(question, f"{answer} (p = {p_value:.2g}, Holm over {len(asked)}).", (line,)))
    return said
