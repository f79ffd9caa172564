"""A small `steelyard group` with planted groups: errors of networks are made up, all else is real."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from grouping.imaginary import Imaginary
from steelyard.grouping.group_study import group
from steelyard.grouping.grouping_result import GroupingResult
from steelyard.study.trial import Trial, derive_seed

PROBLEM = """
    import torch
    from torch import nn
    from steelyard.problems import Metric, Problem, Task, split

    x = torch.linspace(-1, 1, 80).reshape(20, 4)
    error = Metric("error", lambda outputs, targets: float((outputs - targets).abs().mean()), False, ideal=0.0)
    loss = lambda outputs, targets: (outputs[:, 0] - targets).square().mean()
    tasks = [Task(name, loss, [error]) for name in {names}]
    problem = Problem(
        "made-up", tasks, lambda: split(x, {{task.name: x.sum(1) for task in tasks}}), lambda: nn.Linear(4, 3),
        lambda task: nn.Linear(3, 1), batch_size=8, epochs=2,
    )
"""


def write_problem(folder: Path, tasks: int) -> str:
    """A problem file of so many tasks: t0, t1, …"""
    path = folder / "made_up.py"
    path.write_text(textwrap.dedent(PROBLEM.format(names=[f"t{number}" for number in range(tasks)])))
    return str(path)


def planted(effect: float, noise: float, luck: int = 0):
    """An error of 1 alone; even tasks, and odd ones, help each other by `effect` and harm the others by as much."""

    def error(trial: Trial, task: str, kind: str) -> float:
        number = int(task[1:])
        others = [int(other[1:]) for other in trial.tasks if other != task]
        gain = effect * sum(1 if other % 2 == number % 2 else -1 for other in others)
        rng = np.random.default_rng(derive_seed(trial.seed, luck, kind, task, *trial.tasks))
        return 1.0 - gain + noise * float(rng.normal())

    return error


def find(problem: str, store, error, **options) -> tuple[GroupingResult, Imaginary, list[str]]:
    engine, said = Imaginary(error), list[str]()
    settings = {"budget": 12, "networks": 2, "seeds": 5, "affinities": False, **options}
    return group(problem, store=store, on=engine, progress=False, say=said.append, **settings), engine, said
