"""Results of a leaderboard that nobody trained."""

from __future__ import annotations

import numpy as np

from steelyard.reproductions.leaderboard.board_results import BoardProblem, BoardRow, BoardSeed, BoardTask

ALIKE = {"single-task": "single", "equal": "sum", "fixed": "fixed"}


def made_up(
    problem="digits",
    errors=None,
    *,
    kind="images",
    tasks=("a", "b"),
    seeds=(0, 1, 2),
    scatter=0.0,
    groups=None,
    random=0,
    ideal=1.0,
    **fields,
):
    """Rows by the error that they have in every task (or one per task); accuracies are 1 less these.

    A seed shifts all rows alike, and each by its own `scatter` as well.
    """
    draw = np.random.default_rng(random)
    errors = {"single-task": 0.2, "equal": 0.2, "fixed": 0.2} if errors is None else errors
    groups = {**ALIKE, **(groups or {})}
    rows = []
    for name, of_row in errors.items():
        of_tasks = np.broadcast_to(np.asarray(of_row, dtype=float), len(tasks))
        per_seed = {}
        for seed in seeds:
            noise = scatter * draw.normal(size=len(tasks))
            values = {
                task: float(1.0 - error * (1.0 + part))
                for task, error, part in zip(tasks, of_tasks, noise, strict=True)
            }
            per_seed[seed] = BoardSeed(values, dict(values), seconds=10.0 + len(rows), steps=100)
        rows.append(
            BoardRow(
                name, groups.get(name, "method"), "losses", {"learning_rate": 0.001}, None, (10.0 + len(rows)) / 100,
                1_000_000 * (1 + len(rows)), per_seed,
            )
        )  # fmt: skip
    told = {
        "main": None,
        "command": f"steelyard leaderboard --only {problem}",
        "epochs": 3,
        "rates": (0.001, 0.01),
        "tuning_seeds": (100,),
        "machine": {"processor": "two cores"},
        "versions": {"steelyard": "0", "torch": "2"},
        "trained_seconds": 1234.5,
        **fields,
    }
    return BoardProblem(
        problem=problem,
        kind=kind,
        tasks=tuple(BoardTask(task, "accuracy", True, ideal, 0.1) for task in tasks),
        seeds=tuple(seeds),
        rows=tuple(rows),
        **told,
    )
