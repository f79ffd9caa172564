"""Validation values without the luck of the chosen epoch: chosen on one half of the rows, read on the other.

A network's value at the epoch that is best on validation data is too good there: the fewer rows, the more so, and most
of all for a single task, whose epoch is the best of many on its own few rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steelyard.study.planning.plan import Plan, PlannedTask
from steelyard.study.planning.tuning import deciding
from steelyard.study.trial import Result

Array = NDArray[np.float64]


def values_of(plan: Plan, result: Result, tasks: Sequence[str]) -> dict[str, list[float]]:
    """By task, the main metric on either half of the validation rows, at the epoch that is best on the other half.

    Best is the smallest geometric mean of errors over the tasks of the network, as in training. A task whose halves
    have no value has the one at the chosen epoch alone.

    Args:
        plan: knows the metrics, and the main task.
        result: of a network.
        tasks: that it learns.
    """
    on_halves = {task: np.array(result.curves.halves[task]) for task in tasks if task in result.curves.halves}
    deciders = deciding(plan, tasks)
    epochs = [_best_epoch(result, deciders, on_halves, other) for other in (1, 0)] if on_halves else []
    return {
        task: [float(on_halves[task][epoch, half]) for half, epoch in enumerate(epochs)]
        if task in on_halves
        else [result.curves.validation[task][result.chosen_epoch - 1]]
        for task in tasks
    }


def _best_epoch(result: Result, tasks: Sequence[PlannedTask], on_halves: dict[str, Array], half: int) -> int:
    scores = np.zeros(len(next(iter(on_halves.values()))))
    for task in tasks:
        whole = np.array(result.curves.validation[task.name])
        errors = _errors(task, on_halves[task.name][:, half] if task.name in on_halves else whole)
        # An error of exactly zero counts as half of the smallest other one: it should not outweigh all other tasks.
        smallest = errors[errors > 0].min(initial=1.0)
        scores += np.log(np.where(errors > 0, errors, smallest / 2))
    return int(scores.argmin())


def _errors(task: PlannedTask, values: Array) -> Array:
    metric = task.metrics[0]
    if metric.ideal is not None:
        found: Array = np.abs(metric.ideal - values)
        return found
    return 1.0 / values if metric.higher_is_better else values
