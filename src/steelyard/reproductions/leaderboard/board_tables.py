"""The tables of the leaderboard, as texts: the Markdown file and the page print the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.io.printable_text import printable
from steelyard.report import numbers
from steelyard.reproductions.leaderboard.answer_architectures import family_of_architectures
from steelyard.reproductions.leaderboard.answer_methods import family_of_methods
from steelyard.reproductions.leaderboard.board import RANKED, Board
from steelyard.reproductions.leaderboard.board_results import BoardProblem
from steelyard.reproductions.leaderboard.gains import why_not_judged
from steelyard.reproductions.leaderboard.over_problems import least_problems
from steelyard.reproductions.leaderboard.stability import Stability
from steelyard.study.analysis.statistics import interval
from steelyard.study.judgement import Interval
from steelyard.study.planning.tuning import outermost

DECIMALS = 1  # of points of Δm
GROUP_NAMES = {
    "method": "method",
    "architecture": "architecture",
    "sum": "plain sum",
    "fixed": "fixed weights",
    "single": "single tasks",
    "place": "place",
    "optimizer": "optimizer",
}
# Of problems: the name in the file, the column's head, and how the number reads there.
FACTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "batch_size": ("batch size", lambda rows: numbers.count(rows, rows)),
    "train_rows": ("training rows", lambda rows: numbers.count(rows, rows)),
    "missing_labels": ("labels missing, %", lambda share: numbers.fixed(100 * share, DECIMALS)),
    "loss_scales": ("losses apart, ×", numbers.compact),
}
LONGEST_WHY = 160  # characters of what a row said when it failed


@dataclass(frozen=True)
class TextTable:
    """A table as it is printed; the first column names the rows."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def all_tables(board: Board, stability: Stability) -> list[TextTable]:
    found = [row_table(board, stability), gain_table(board), problem_table(board), trouble_table(board)]
    return [table for table in found if table.rows]


def in_order(board: Board) -> list[str]:
    """Ranked rows by average rank, then the others as they were exported."""
    average = dict(zip(board.ranked, board.ranks.mean(0), strict=True))
    others = [name for name in board.names if name not in average]
    return [*sorted(average, key=lambda name: average[name]), *others]


def row_table(board: Board, stability: Stability) -> TextTable:
    """Every row over problems: its place, Δm, what it is ahead of, and what it costs."""
    names, family = in_order(board), family_of_methods(board)
    family["sum"] |= family_of_architectures(board)
    single = dict(zip(names, _over(board, names), strict=True))
    rows = []
    for name in names:
        if board.groups[name] not in RANKED:
            continue
        place = stability.ranges.get(name)
        against = [family[baseline].get(name) for baseline in ("sum", "fixed")]
        time, memory = board.costs(name)
        there = sum(name in samples and len(samples[name]) > 0 for samples in board.samples(board.reference))
        rows.append((
            name,
            GROUP_NAMES[board.groups[name]],
            place.text if place else numbers.MISSING,
            points_text(single[name]),
            *(text for found in against for text in (
                points_text(found.interval if found else None),
                p_text(found.p_value if found and len(board.problems) >= least_problems() else math.nan),
                f"{found.better} of {len(found.by_problem)}" if found and found.by_problem else numbers.MISSING,
            )),
            numbers.fixed(time, 2),
            numbers.fixed(memory, 2),
            str(there),
        ))  # fmt: skip
    of = "single tasks" if board.reference == "single" else "the plain sum"
    return TextTable(
        "All rows, over problems",
        f"Mean Δm over problems in points, with half of the 95 % interval over problems; against {of}, the plain sum "
        "and the best fixed weights. p: of methods, with both comparisons of all of them together; of architectures, "
        f"with those of all architectures; none on fewer than {least_problems()} problems, which can show nothing. "
        "Place: by average "
        "rank, a range where other problems, other seeds or values in the place of errors would give another. Time per "
        "step and memory: × those of the plain sum. "
        "Problems: on which the row has a number.",
        (
            "row", "kind", "place", f"Δm against {of}", "against the plain sum", "p", "ahead", "against fixed "
            "weights", "p",
            "ahead", "time ×", "memory ×", "problems",
        ),
        tuple(rows),
    )  # fmt: skip


def gain_table(board: Board) -> TextTable:
    """Δm by row and problem, with its interval over seeds."""
    names = in_order(board)
    by_problem = board.samples(board.reference)
    rows = []
    for name in names:
        cells = []
        for problem, samples in zip(board.problems, by_problem, strict=True):
            row = next((each for each in problem.rows if each.name == name), None)
            if row is None:
                cells.append(numbers.MISSING)
            elif len(samples[name]):
                cells.append(points_text(interval(samples[name])))
            else:
                cells.append("failed" if why_not_judged(problem, row) else numbers.MISSING)
        rows.append((name, *cells))
    of = "single tasks" if board.reference == "single" else "the plain sum"
    return TextTable(
        "Δm by problem",
        f"Points of Δm against {of}: the mean over seeds with half of its 95 % interval. Of a problem with a main "
        "task, that task's alone.",
        ("row", *(problem.problem for problem in board.problems)),
        tuple(rows),
    )


def problem_table(board: Board) -> TextTable:
    """What was trained, and at what size."""
    there = {name for problem in board.problems for name in problem.facts}
    facts = [*(name for name in FACTS if name in there), *sorted(there - {*FACTS})]
    rows = []
    for problem in board.problems:
        metrics = ", ".join(dict.fromkeys(task.metric for task in problem.tasks))
        rows.append((
            problem.problem,
            problem.kind,
            str(len(problem.tasks)),
            problem.main or numbers.MISSING,
            metrics,
            str(len(problem.rows)),
            str(len(problem.seeds)),
            str(problem.epochs),
            _rates(problem),
            _edges(problem),
            str(len(problem.tuning_seeds)),
            *(_fact(name)[1](problem.facts[name]) if name in problem.facts else numbers.MISSING for name in facts),
            numbers.duration(problem.trained_seconds),
        ))  # fmt: skip
    return TextTable(
        "Problems",
        "Rates: those that validation chose from, for every row alike, on so many tuning seeds; beyond: so many more, "
        "one after the other, past the largest or the smallest while the outermost was the best. At an edge: the rows "
        "for which it chose the smallest or the largest of all these, so that a better one may lie further out. "
        "Trained: everything, what only chose included. Losses apart: the largest of the tasks' losses over the "
        "smallest, in the first epoch of the plain sum.",
        (
            "problem", "kind", "tasks", "main task", "metrics", "rows", "seeds", "epochs", "rates", "at an edge",
            "tuning seeds",
            *(_fact(name)[0] for name in facts), "trained",
        ),
        tuple(rows),
    )  # fmt: skip


def at_edges(problem: BoardProblem) -> tuple[int, int, int]:
    """For how many rows the outermost rates were chosen, the smallest and the largest that they could have had, and of
    how many; zeros where few were tried.

    Of rows with one network that the problem's own optimizer steps: others had other rates to choose from.
    """
    if len(problem.rates) < 3:
        return 0, 0, 0
    chosen = [row.chosen.get("learning_rate") for row in problem.rows if row.group != "optimizer"]
    chosen = [rate for rate in chosen if isinstance(rate, float)]
    smallest, largest = (outermost(problem.rates, problem.beyond, side) for side in (False, True))
    return chosen.count(smallest), chosen.count(largest), len(chosen)


def _rates(problem: BoardProblem) -> str:
    """``0.001, 0.01, 0.1 and 2 beyond``"""
    rates = ", ".join(f"{rate:g}" for rate in sorted(problem.rates)) or numbers.MISSING
    return f"{rates} and {problem.beyond} beyond" if problem.beyond else rates


def _edges(problem: BoardProblem) -> str:
    """``0 smallest, 48 largest of 65``"""
    smallest, largest, rows = at_edges(problem)
    return f"{smallest} smallest, {largest} largest of {rows}" if rows else numbers.MISSING


def _fact(name: str) -> tuple[str, Callable[[float], str]]:
    return FACTS.get(name, (name.replace("_", " "), numbers.compact))


def trouble_table(board: Board) -> TextTable:
    """Rows that failed or collapsed: named, and not averaged away."""
    rows = tuple(
        (
            each.row,
            each.problem,
            " ".join(printable(each.why, LONGEST_WHY).split()),
            "as it is" if each.judged else "last in rank, not in means",
        )
        for each in board.troubles
    )
    return TextTable(
        "Rows that failed or collapsed",
        "A row without a number has the last rank on that problem and no part in means; one that learnt nothing "
        "counts as it is.",
        ("row", "problem", "what happened", "how it counts"),
        rows,
    )


def not_ranked(board: Board) -> list[str]:
    """Rows that would have a rank, but were not run on every problem."""
    return [name for name in board.named(*RANKED) if name not in board.ranked]


def _over(board: Board, names: Sequence[str]) -> list[Interval | None]:
    table = board.table(board.reference, names)
    return [interval(column[np.isfinite(column)]) for column in table.T]


def points_text(found: Interval | None) -> str:
    """``+1.3 ±0.4``; the mean alone where nothing bounds it."""
    return numbers.plus_minus(found, DECIMALS, 100.0)


def p_text(p_value: float) -> str:
    return numbers.MISSING if math.isnan(p_value) else "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
