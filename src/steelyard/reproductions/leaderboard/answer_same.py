"""Which rows are one training under several names?"""

from __future__ import annotations

from itertools import combinations

from steelyard.io.lists_and_counts import listed
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import BoardAnswer
from steelyard.reproductions.leaderboard.gains import row_named
from steelyard.reproductions.leaderboard.same_training import same_rows


def same_trainings(board: Board) -> BoardAnswer:
    """Groups of rows with the same values on every problem that has them, and those of single problems."""
    question = "Which rows are one training under several names?"
    by_problem = {problem.problem: same_rows(problem) for problem in board.problems}
    if not any(by_problem.values()):
        return BoardAnswer(question, "None.")
    everywhere = _everywhere(board, by_problem)
    texts = []
    for name, groups in by_problem.items():
        rest = [kept for group in groups if len(kept := _without(group, everywhere)) > 1]
        if rest:
            texts.append(f"On {name}: {'; '.join(listed(group) for group in rest)}.")
    always = [f"Wherever they were run: {'; '.join(listed(group) for group in everywhere)}."] if everywhere else []
    return BoardAnswer(
        question,
        " ".join([*always, *texts]),
        (
            "To six digits of every test value of every seed: what their formulas differ in is nothing for these "
            "tasks, or a factor that rescaling takes out. Each counts as a row of its own in all that is said here.",
        ),
    )


def _everywhere(board: Board, by_problem: dict[str, list[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """The groups whose rows are the same on every problem that has two of them, and on two problems at least."""
    pairs = {pair for groups in by_problem.values() for group in groups for pair in combinations(group, 2)}
    kept = []
    for pair in sorted(pairs, key=lambda pair: [board.names.index(name) for name in pair]):
        both = [each for each in board.problems if all(row_named(each, name) is not None for name in pair)]
        if len(both) > 1 and all(any({*pair} <= {*group} for group in by_problem[each.problem]) for each in both):
            kept.append(pair)
    groups: list[list[str]] = []
    for first, second in kept:
        for group in groups:
            if first in group:
                group += [] if second in group else [second]
                break
        else:
            groups.append([first, second])
    return [tuple(group) for group in groups]


def _without(group: tuple[str, ...], everywhere: list[tuple[str, ...]]) -> tuple[str, ...]:
    """A group of one problem, of rows that are the same everywhere the first alone."""
    later = {name for each in everywhere for name in each[1:] if each[0] in group}
    return tuple(name for name in group if name not in later)
