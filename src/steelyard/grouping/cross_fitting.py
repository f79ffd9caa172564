"""Validation values without the luck of the chosen epoch: chosen on one half of the rows, read on the other.

A network's value at the epoch that is best on validation data is too good there: the fewer rows, the more so, and most
of all for a single task, whose epoch is the best of many on its own few rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steelyard.study.planning.plan import Plan, PlannedMetric, PlannedTask
from steelyard.study.planning.tuning import deciding
from steelyard.study.storage.short_curves import check_whole
from steelyard.study.trial import Result

Array = NDArray[np.float64]


def values_of(plan: Plan, result: Result, tasks: Sequence[str]) -> dict[str, list[float]]:
    """By task, the main metric on either half of the validation rows, at the epoch that is best on the other half.

    Best is the smallest geometric mean of errors over the tasks of the network, as in training; where one task decides,
    it is that task's best value. Where the problem judges networks at their last epoch, both halves are read there. A
    task whose halves have no value has the one at the chosen epoch alone.

    Args:
        plan: knows the metrics, the main task, and which epoch counts.
        result: of a network.
        tasks: that it learns.
    """
    check_whole(result, "groups are searched by what each epoch had on either half of the validation rows")
    on_halves = {task: np.array(result.curves.halves[task]) for task in tasks if task in result.curves.halves}
    deciders = deciding(plan, tasks)
    if plan.choose == "last":
        epochs = [result.chosen_epoch - 1] * 2
    else:
        epochs = [_best_epoch(result, deciders, on_halves, other) for other in (1, 0)]
    return {
        task: [float(on_halves[task][epoch, half]) for half, epoch in enumerate(epochs)]
        if task in on_halves
        else [result.curves.validation[task][result.chosen_epoch - 1]]
        for task in tasks
    }


def _best_epoch(result: Result, tasks: Sequence[PlannedTask], on_halves: dict[str, Array], half: int) -> int:
    curves = {
        task: on_halves[task.name][:, half] if task.name in on_halves else np.array(result.curves.validation[task.name])
        for task in tasks
    }
    if len(tasks) == 1:
        ((task, values),) = curves.items()
        return int(_distance(task.metrics[0], values).argmin())
    scores = np.sum([_log_errors(task.metrics[0], values) for task, values in curves.items()], axis=0)
    return int(scores.argmin())


def _distance(metric: PlannedMetric, values: Array) -> Array:
    """In the metric's own order: the smaller the better, of either sign where no value is known to be perfect."""
    if metric.ideal is not None:
        found: Array = np.abs(metric.ideal - values)
        return found
    return -values if metric.higher_is_better else values


def _log_errors(metric: PlannedMetric, values: Array) -> Array:
    """Logarithms of errors, which add up over tasks; without an ideal, of values or of their inverses.

    What has no logarithm counts as half of the smallest that has one. An error of exactly zero then does not outweigh
    all other tasks. A value at or below zero of a metric without an ideal, which training refuses on all rows, can come
    up on half of them: where higher is better, it stays the worst. A task that has no other has no say.
    """
    inverse = metric.ideal is None and metric.higher_is_better
    errors = values if inverse else _distance(metric, values)
    smallest = errors.min(initial=np.inf, where=errors > 0)
    if not np.isfinite(smallest):
        return np.zeros(len(errors))
    logs: Array = np.log(np.where(errors > 0, errors, smallest / 2))
    return -logs if inverse else logs
