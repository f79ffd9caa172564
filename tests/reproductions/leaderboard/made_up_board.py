"""Results of a leaderboard that nobody trained."""

from __future__ import annotations

import dataclasses

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
            reached = {task: (value - 0.1, value) for task, value in values.items()}
            per_seed[seed] = BoardSeed(values, dict(values), seconds=10.0 + len(rows), steps=100, reached=reached)
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


def ten(errors, count=10, **fields):
    """So many problems; an error may be a function of the problem's number."""
    return [
        made_up(
            f"p{place}",
            {name: error(place) if callable(error) else error for name, error in errors.items()},
            random=place,
            **fields,
        )
        for place in range(count)
    ]


def planted():
    """Eight problems on which the truth is known: `good` gains 20 % of the plain sum's error, `bad` loses as much.

    `fixed` gains 5 %, `mmoe` 10 %; reading at the trunk gains 3 % of what `good` has, SGD nothing. Losses of every
    second problem lie apart, and there `good` gains more. `broken` failed on one problem, `lost` learnt nothing on one.
    """
    draw = np.random.default_rng(7)
    problems = []
    for place in range(8):
        level, apart = 0.2 * draw.uniform(0.7, 1.4), place % 2
        good = level * (0.85 - 0.1 * apart)
        errors = {
            "single-task": level * 0.95,
            "equal": level,
            "fixed": level * 0.95,
            "good": good,
            "bad": level * 1.2,
            "like": level,
            "broken": level,
            "lost": level if place != 2 else 0.95,
            "mmoe": level * 0.9,
            "good(look=trunk)": good * 0.97,
            "good, SGD": good,
        }
        errors = {name: error * (1 + 0.01 * draw.normal()) for name, error in errors.items()}
        problem = made_up(
            f"p{place}",
            errors,
            kind=("images", "tables")[apart],
            seeds=range(4),
            scatter=0.02,
            random=place,
            groups={"mmoe": "architecture", "good(look=trunk)": "place", "good, SGD": "optimizer"},
            facts={"loss_scales": 30.0 if apart else 2.0, "missing_labels": 0.0},
        )
        rows = []
        for row in problem.rows:
            if row.name == "broken" and place == 1:
                row = dataclasses.replace(row, failed="loss | is nan\nat step 3", per_seed={})
            if row.group in ("place", "optimizer"):
                row = dataclasses.replace(row, of="good")
            rows.append(row)
        problems.append(dataclasses.replace(problem, rows=tuple(rows)))
    return problems
