"""Does any method beat the plain sum and the best fixed weights, and what does one gain by taking the best?"""

from __future__ import annotations

import math

import numpy as np

from steelyard.io.lists_and_counts import counted, listed
from steelyard.reproductions.leaderboard.board import Board, OverProblems
from steelyard.reproductions.leaderboard.board_answer import (
    BASELINE_NAMES,
    BoardAnswer,
    points,
    problem_by_problem,
    shown_rows,
    too_few,
    who_beats,
)
from steelyard.reproductions.leaderboard.over_problems import together_over_problems
from steelyard.study.analysis.statistics import Array, interval


def headline(board: Board) -> str:
    """The first answer in a few words."""
    if too_few(board):
        return f"{counted(len(board.problems), 'problem')}: too few to say which method when"
    family = family_of_methods(board)
    said = []
    for baseline in ("sum", "fixed"):
        better = len(shown_rows(family[baseline], 1))
        number = f"{better or 'No'} method{'' if better < 2 else 's'}"
        shown = "beat" if better > 1 else "beats" if better else "is shown to beat"
        said.append(f"{number} {shown} {BASELINE_NAMES[baseline]}")
    if said[0].startswith("No ") and said[1].startswith("No "):
        return f"{said[0]} or {BASELINE_NAMES['fixed']}"
    return f"{said[0]}, {said[1][0].lower()}{said[1][1:]}"


def family_of_methods(board: Board) -> dict[str, dict[str, OverProblems]]:
    """By baseline, every method against the plain sum and against the best fixed weights: one family."""
    methods = {"sum": board.named("method", "fixed"), "fixed": board.named("method")}
    tables = {baseline: board.table(baseline, names) for baseline, names in methods.items()}
    together = together_over_problems(np.concatenate(list(tables.values()), axis=1))
    found, start = {}, 0
    for baseline, names in methods.items():
        alone = board.over_problems(tables[baseline], names)
        found[baseline] = {
            name: OverProblems(each.by_problem, each.interval, float(together[start + place]))
            for place, (name, each) in enumerate(alone.items())
        }
        start += len(names)
    return found


def beats(board: Board, baseline: str) -> BoardAnswer:
    """Does any method beat the plain sum, or the best fixed weights?"""
    against = BASELINE_NAMES[baseline]
    question = f"Does any method beat {against}?"
    family = family_of_methods(board)
    compared = {name: each for name, each in family[baseline].items() if each.by_problem}
    if not compared:
        return BoardAnswer(question, f"Cannot be said: no problem has both {against} and a method.")
    size = sum(math.isfinite(each.p_value) for tested in family.values() for each in tested.values())
    lines = [problem_by_problem(board, baseline, list(compared))]
    if reason := too_few(board):
        return BoardAnswer(question, reason, tuple(lines))
    lines.append(
        f"Mean gains over problems, in points of Δm, with plain 95 % intervals over "
        f"{counted(len(board.problems), 'problem')}; "
        f"better and worse are said at 5 % for all {counted(size, 'comparison')} with the plain sum and the best "
        "fixed weights together."
        + f" The best fixed weights are one of the {len(compared)}." * bool(set(board.named("fixed")) & set(compared))
    )  # fmt: skip
    return BoardAnswer(question, who_beats(compared, "method", against, len(board.problems)), tuple(lines))


def choosing(board: Board) -> BoardAnswer:
    """What one gains by taking the method that did best elsewhere: on each problem, by all others."""
    question = "What does one gain by taking the method that did best elsewhere?"
    names = board.named("method")
    changes = board.table("sum", names)
    complete = np.flatnonzero(np.isfinite(changes).all(0))
    if reason := too_few(board):
        return BoardAnswer(question, reason)
    if len(complete) == 0:
        return BoardAnswer(question, "Cannot be said: no method has a number on every problem beside the plain sum.")
    gained, chosen = left_out_gains(changes[:, complete])
    taken = [names[place] for place in complete]
    found = interval(gained)
    assert found is not None  # there are problems
    word = "more than the plain sum" if found.low > 0 else "less" if found.high < 0 else "not told from the plain sum"
    which = [taken[place] for place in chosen]
    counts = {name: which.count(name) for name in dict.fromkeys(which)}
    said = listed(f"{name} ({times} ×)" for name, times in sorted(counts.items(), key=lambda each: -each[1]))
    line = (
        f"Chosen: {said}. Each problem is left out once; the interval takes them as independent, which they nearly are."
    )
    return BoardAnswer(
        question,
        "On a problem that had no say in the choice, the method with the best mean on the others gains "
        f"{points(found)} of Δm over the plain sum: {word}.",
        (line,),
    )


def left_out_gains(changes: Array) -> tuple[list[float], list[int]]:
    """By problem, the gain of the column with the best mean over the other problems, and which it is."""
    chosen = [int(np.argmax(np.delete(changes, place, axis=0).mean(0))) for place in range(len(changes))]
    return [float(changes[place, column]) for place, column in enumerate(chosen)], chosen
