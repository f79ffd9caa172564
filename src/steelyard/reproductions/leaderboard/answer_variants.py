"""Does it matter where gradients are read, and which optimizer steps?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from steelyard.io.lists_and_counts import counted
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import ALPHA, BoardAnswer, are, named_rows, points_of, too_few
from steelyard.reproductions.leaderboard.gains import row_named
from steelyard.study.analysis.statistics import Array, interval


def variants(board: Board, group: str, question: str) -> BoardAnswer:
    """Rows that differ from another in one thing alone: pooled by what that is, and each."""
    names = board.named(group)
    changes = board.against_own(names)
    kept = [place for place in range(len(names)) if np.isfinite(changes[:, place]).any()]
    names, changes = [names[place] for place in kept], changes[:, kept]
    if not names:
        return BoardAnswer(question, "Cannot be said: no problem has a row that differs in this alone.")
    if reason := too_few(board):
        means = "; ".join(
            f"{name} {points_of(interval(_finite(changes[:, place])))}" for place, name in enumerate(names)
        )
        return BoardAnswer(question, reason, (f"Mean gains over the same method as it is by default: {means}.",))
    pooled = {kind: _pooled(changes[:, places]) for kind, places in _kinds(board, names).items()}
    stacked = np.stack(list(pooled.values()), axis=1)
    found = board.over_problems(stacked, list(pooled))
    texts = []
    for kind, each in found.items():
        word = "shown to matter" if each.p_value <= ALPHA else "not shown to matter"
        texts.append(f"{kind}: {points_of(each.interval)} over {counted(len(each.by_problem), 'problem')}, {word}")
    alone = board.over_problems(changes, names)
    told = [name for name, each in alone.items() if each.p_value <= ALPHA]
    singly = f"Row by row, all {len(names)} judged together, {are(len(told))} shown to differ"
    return BoardAnswer(
        question,
        f"Gain over the same method as it is by default, in the mean of methods: {'; '.join(texts)}.",
        (f"{singly}: {named_rows(alone, told)}." if told else f"{singly}.",),
    )


def _kinds(board: Board, names: Sequence[str]) -> dict[str, list[int]]:
    """The columns by what they differ in: what their name says beyond that of their own row."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        own = next((row.of for problem in board.problems if (row := row_named(problem, name)) and row.of), "")
        if not own:
            own = max((other for other in board.names if other != name and name.startswith(other)), key=len, default="")
        rest = name.removeprefix(own).strip(" ,@()") if own else name
        found.setdefault(rest or name, []).append(place)
    return found


def _pooled(changes: Array) -> Array:
    """The mean over columns, by problem, of those that have a number."""
    known = np.isfinite(changes)
    total = np.where(known, changes, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), math.nan)


def _finite(values: Array) -> Array:
    kept: Array = values[np.isfinite(values)]
    return kept
