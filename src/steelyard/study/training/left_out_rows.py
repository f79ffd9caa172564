"""A metric on parts of the rows: how far it hangs on which rows these are."""

from __future__ import annotations

import math

import torch

from steelyard.errors import ProblemError
from steelyard.problems.task import Task
from steelyard.study.training.evaluate import TaskOutputs, measure

PARTS = 20
FEWEST = 4
"""Labels of which either half is worth a look."""


def left_out(task: Task, shown: TaskOutputs) -> list[float]:
    """The main metric without each twentieth of a task's labelled test rows; empty where that has no value.

    The same rows are left out of every network's outputs, so that differences between networks can be told from the
    rows that they share (`statistics.rows_half_width`). There is no value with fewer rows than parts, where a metric's
    statistics are not one per row, and where it fails without some rows (a part holds all labels of one class).

    Cost: the metric twenty times.
    """
    count = len(shown.targets)
    if count < PARTS or len(shown.outputs) != count:
        return []
    part = torch.arange(count, device=shown.targets.device) % PARTS
    found = []
    try:
        for each in range(PARTS):
            rows = (part != each).nonzero().squeeze(1)
            there = TaskOutputs(shown.outputs.index_select(0, rows), shown.targets.index_select(0, rows), None)
            found += [float(f"{value:.9g}") for value in measure(task, there, "test", only_main=True)]
    except ProblemError:
        return []
    return found if all(map(torch.isfinite, torch.tensor(found))) else []


def on_halves(task: Task, shown: TaskOutputs) -> list[float]:
    """The main metric on either half of a task's labelled validation rows; empty where that has no value.

    What is chosen on one half is measured on the other without luck. The halves have labels alike: of rows in the order
    of their labels every other one; they are the same for every network. There is no value with fewer than four rows,
    where a metric's statistics are not one per row, and where it fails on a half.

    Cost: the metric once more.
    """
    targets = shown.targets
    count = len(targets)
    if count < FEWEST or len(shown.outputs) != count:
        return []
    order = targets.flatten().argsort(stable=True) if targets.numel() == count else torch.arange(count)
    found = []
    try:
        for half in (order[::2], order[1::2]):
            rows = half.sort().values
            there = TaskOutputs(shown.outputs.index_select(0, rows), targets.index_select(0, rows), None)
            found += [float(f"{value:.9g}") for value in measure(task, there, "validation", only_main=True)]
    except ProblemError:
        return []
    return found if all(map(math.isfinite, found)) else []
