"""All problems of a leaderboard side by side: what each row gains on each, and what that says over problems."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.errors import LeaderboardError
from steelyard.reproductions.leaderboard.board_results import BoardProblem, BoardRow, Group
from steelyard.reproductions.leaderboard.gains import (
    Base,
    below_trivial,
    far_below,
    gains,
    row_named,
    row_of_group,
    why_not_judged,
)
from steelyard.reproductions.leaderboard.over_problems import together_over_problems
from steelyard.reproductions.leaderboard.ranks import ranks
from steelyard.reproductions.leaderboard.same_training import is_same
from steelyard.study.analysis.statistics import Array, interval
from steelyard.study.judgement import Interval

BASELINES = ("single", "sum", "fixed")
"""What rows are compared with, by group."""
RANKED = ("method", "architecture", *BASELINES)
"""The groups that have a rank; places and optimizers are compared with their own row alone."""


@dataclass(frozen=True)
class OverProblems:
    """What one row gains over another, problem by problem, and over them."""

    by_problem: dict[str, float]  # the mean over seeds
    interval: Interval | None  # Student t over problems
    p_value: float  # together with the others of its family; NaN where it could not be tested

    @property
    def better(self) -> int:
        """On how many problems the row is ahead."""
        return sum(change > 0 for change in self.by_problem.values())


@dataclass(frozen=True)
class Trouble:
    """A row that has no number on a problem, or one that shows that it learnt nothing."""

    problem: str
    row: str
    why: str
    judged: bool  # whether it has a number all the same


class Board:
    """Tables ``[problems, rows]`` over what was exported."""

    def __init__(self, problems: Sequence[BoardProblem]) -> None:
        if not problems:
            raise LeaderboardError("there is no problem on the leaderboard")
        self.problems = tuple(problems)
        found: dict[str, Group] = {}
        for problem in self.problems:
            for row in problem.rows:
                if found.setdefault(row.name, row.group) != row.group:
                    raise LeaderboardError(
                        f"the row {row.name!r} is of the group {row.group!r} on {problem.problem}, and of "
                        f"{found[row.name]!r} elsewhere: give it one name and one group on all problems"
                    )
        self.groups = found
        self._samples: dict[tuple[str, Base], list[dict[str, Array]]] = {}

    @property
    def names(self) -> list[str]:
        return list(self.groups)

    def named(self, *groups: str) -> list[str]:
        """The rows of these groups."""
        return [name for name, group in self.groups.items() if group in groups]

    @functools.cached_property
    def ranked(self) -> list[str]:
        """The rows that were run on every problem, and can therefore be ranked."""
        return [
            name
            for name in self.named(*RANKED)
            if all(row_named(problem, name) is not None for problem in self.problems)
        ]

    @functools.cached_property
    def reference(self) -> str:
        """What Δm is against: single-task learning, and the plain sum where a problem has none of it."""
        return "single" if all(row_of_group(problem, "single") for problem in self.problems) else "sum"

    def samples(self, baseline: str, base: Base = "errors") -> list[dict[str, Array]]:
        """By problem, what each row gains by seed over the row of the group `baseline`; empty where there is none."""
        if (baseline, base) not in self._samples:
            self._samples[baseline, base] = [
                {row.name: gains(problem, row, row_of_group(problem, baseline), base) for row in problem.rows}
                for problem in self.problems
            ]
        return self._samples[baseline, base]

    def table(self, baseline: str, names: Sequence[str], base: Base = "errors") -> Array:
        """Mean gains ``[problems, rows]``; NaN where there is no number."""
        by_problem = self.samples(baseline, base)
        return np.array(
            [
                [float(each[name].mean()) if len(each.get(name, ())) else math.nan for name in names]
                for each in by_problem
            ]
        ).reshape(len(self.problems), len(names))

    def against_own(self, names: Sequence[str]) -> Array:
        """Of variants, the mean gains over the row that each differs from in its place or optimizer alone."""
        found = np.full((len(self.problems), len(names)), math.nan)
        for place, problem in enumerate(self.problems):
            for column, name in enumerate(names):
                row = row_named(problem, name)
                own = None if row is None else row_named(problem, own_row(row, problem))
                if row is None or own is None or is_same(row, own):
                    continue  # what is read there by default has no other place to be compared with
                changes = gains(problem, row, own)
                if len(changes):
                    found[place, column] = np.mean(changes)
        return found

    def over_problems(self, changes: Array, names: Sequence[str]) -> dict[str, OverProblems]:
        """One family: these columns of gains ``[problems, rows]``, judged together."""
        together, found = together_over_problems(changes), {}
        for column, name in enumerate(names):
            by_problem = {
                problem.problem: float(change)
                for problem, change in zip(self.problems, changes[:, column], strict=True)
                if math.isfinite(change)
            }
            found[name] = OverProblems(by_problem, interval(list(by_problem.values())), float(together[column]))
        return found

    @functools.cached_property
    def ranks(self) -> Array:
        """Of the ranked rows, by problem; what has no number shares the last ones."""
        return ranks(self.table(self.reference, self.ranked))

    @functools.cached_property
    def troubles(self) -> list[Trouble]:
        """Rows without a number, and those that learnt nothing, by problem."""
        found = []
        for place, problem in enumerate(self.problems):
            names = [row.name for row in problem.rows]
            far = {names[each] for each in far_below(self.table(self.reference, names)[place])}
            for row in problem.rows:
                if why := why_not_judged(problem, row):
                    found.append(Trouble(problem.problem, row.name, why, judged=False))
                elif tasks := below_trivial(problem, row):
                    why = f"worse than one prediction for all rows in {', '.join(tasks)}"
                    found.append(Trouble(problem.problem, row.name, why, judged=True))
                elif row.name in far:
                    found.append(Trouble(problem.problem, row.name, "far below most others", judged=True))
        return found

    def costs(self, name: str) -> tuple[float, float]:
        """Time per step and memory against the plain sum: geometric means over problems; NaN where not measured."""
        times, memories = [], []
        for problem in self.problems:
            row, plain = row_named(problem, name), row_of_group(problem, "sum")
            if row is None or plain is None or why_not_judged(problem, row) or why_not_judged(problem, plain):
                continue
            if row.seconds_per_step > 0 and plain.seconds_per_step > 0:
                times.append(row.seconds_per_step / plain.seconds_per_step)
            if row.peak_memory and plain.peak_memory:
                memories.append(row.peak_memory / plain.peak_memory)
        return geometric(times), geometric(memories)


def own_row(row: BoardRow, problem: BoardProblem) -> str:
    """The row that a variant differs from: the one it names, or else the longest name that its own begins with."""
    if row.of:
        return row.of
    begun = [other.name for other in problem.rows if other.name != row.name and row.name.startswith(other.name)]
    return max(begun, key=len, default="")


def geometric(values: Sequence[float]) -> float:
    """The geometric mean; NaN of none."""
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan
