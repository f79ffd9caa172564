"""Metrics of a network on a split, and which epoch was best."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from steelyard.errors import ProblemError, SteelyardError, TrainingError
from steelyard.problems.problem import Problem
from steelyard.problems.task import Metric, Task
from steelyard.study.training.hardware import ON_CPU, Hardware
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.trial import Trial

POINTS = 100  # of a curve that nothing is chosen by


class TaskOutputs(NamedTuple):
    """What a network makes of the rows of a split that have a label of one task."""

    outputs: Tensor  # or the task's statistics of them
    targets: Tensor
    loss: Tensor | None  # mean over these rows, where it was asked for


def predict(
    network: nn.Module,
    problem: Problem,
    split: RowsOnDevice,
    batch_size: int,
    losses: bool = False,
    hardware: Hardware = ON_CPU,
) -> dict[str, TaskOutputs]:
    """The labelled rows of a split, for every task of the network, in evaluation mode; on the CPU, for any metric.

    Raises:
        ProblemError: a task turns out to have no label there.
    """
    batch_size *= 2  # nothing is kept for a backward; beyond this, convolutions slow down again
    network.eval()
    parts: dict[str, list[Tensor]] = {}
    sums: dict[str, list[Tensor]] = {}
    seen: dict[str, list[Tensor]] = {}
    learnt: set[str] = set()
    with torch.inference_mode():
        for inputs, targets in split.evaluation(batch_size):
            prepared = problem.prepare(inputs)
            with hardware.forward():
                outputs, _ = network(prepared)
            learnt.update(outputs)
            for name, output in hardware.outputs(outputs).items():
                if name not in targets:
                    continue
                task, (here, places) = problem.task(name), targets[name]
                if places is not None:
                    output = output[places]
                if losses and len(here):
                    sums.setdefault(name, []).append(task.loss(output, here) * len(here))
                parts.setdefault(name, []).append(task.statistics(output, here) if task.statistics else output)
                seen.setdefault(name, []).append(here.cpu())
    network.train()
    shown = {}
    for name in learnt:
        count = sum(map(len, seen.get(name, ())))
        if not count:
            raise ProblemError(f"no row of the validation or test data has a label of {name!r}")
        loss = torch.stack(sums[name]).sum() / count if losses else None
        shown[name] = TaskOutputs(torch.cat(parts[name]).cpu(), torch.cat(seen[name]), loss)
    return shown


def measure(task: Task, shown: TaskOutputs, part: str, only_main: bool = False) -> list[float]:
    """The task's metrics, or the first of them, of its labelled rows of a part of the data (``"test"``).

    Raises:
        ProblemError: a metric fails; names it, the task and the part.
    """
    metrics = task.metrics[:1] if only_main else task.metrics
    with torch.inference_mode():
        return [_measured(task, metric, shown, part) for metric in metrics]


def tested(task: Task, shown: TaskOutputs) -> list[float]:
    """The task's metrics of its labelled test rows.

    Raises:
        ProblemError: a metric fails.
        TrainingError: one is inf or NaN: there is no mean over seeds of such values.
    """
    values = measure(task, shown, "test")
    for metric, value in zip(task.metrics, values, strict=True):
        _check_finite(task, metric, value, "test")
    return values


def _check_finite(task: Task, metric: Metric, value: float, part: str) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{metric.name} of task {task.name!r} on {part} data is {value}: training diverged, or the metric is not "
            "defined there"
        )


def _measured(task: Task, metric: Metric, shown: TaskOutputs, part: str) -> float:
    try:
        return float(metric.function(shown.outputs, shown.targets))
    except Exception as error:  # a metric knows neither its task nor its rows
        what = str(error) if isinstance(error, SteelyardError) else f"{type(error).__name__}: {error}"
        raise ProblemError(f"{metric.name} of task {task.name!r} on the {part} data: {what}") from error


def asked(trial: Trial, last: bool) -> Collection[int]:
    """The epochs after which validation data are read: each, where each may be chosen or may end the training.

    Where the last one is taken whatever they say, they draw a curve alone: `POINTS` of it, the first and the last
    among them, are enough.
    """
    if not last or trial.patience:
        return range(1, trial.epochs + 1)
    return {1, *range(trial.epochs, 0, -max(1, math.ceil((trial.epochs - 1) / (POINTS - 1))))}


class BestEpoch:
    """The epoch with the smallest geometric mean over tasks of the validation error of the main metric.

    error = |ideal − value|; without an ideal, the value itself where lower is better and its inverse where higher is. A
    geometric mean does not care about units. An error of exactly zero would outweigh all other tasks; it counts as
    half of one row's, or as half of the smallest error seen, if that is less. The earlier of equal epochs wins.

    With a main task, it decides alone wherever it is among the tasks. Where the `last` epoch is to be taken, each is
    better than those before.
    """

    def __init__(
        self, tasks: Sequence[Task], rows: Mapping[str, int], main: str | None = None, last: bool = False
    ) -> None:
        self.tasks = tasks
        self.last = last
        self.deciding = [task.name for task in tasks if task.name == main] or [task.name for task in tasks]
        self.smallest = {name: 1 / count for name, count in rows.items()}
        self.score = math.inf
        self.epoch = 0

    def asks(self, epoch: int, trial: Trial) -> bool:
        """Whether validation data are read after an epoch; see `asked`."""
        return epoch in asked(trial, self.last)

    def better(self, epoch: int, values: Mapping[str, float]) -> bool:
        """Take note of an epoch's main metrics; is it the best so far?"""
        if self.last:
            self.epoch = epoch
            return True
        errors = {task.name: _error(task, values[task.name]) for task in self.tasks}
        for name, error in errors.items():
            self.smallest[name] = min(self.smallest[name], error or math.inf)
        score = sum(math.log(errors[name] or self.smallest[name] / 2) for name in self.deciding)
        if score < self.score:
            self.score, self.epoch = score, epoch
        return self.epoch == epoch

    def ends(self, epoch: int, epochs: int, patience: int) -> bool:
        """Is it the last: of all `epochs`, or because so many in a row as there is patience for were no better?"""
        return epoch >= epochs or 0 < patience <= epoch - self.epoch


def _error(task: Task, value: float) -> float:
    metric = task.metrics[0]
    _check_finite(task, metric, value, "validation")
    if metric.ideal is not None:
        return abs(metric.ideal - value)
    if value <= 0:
        raise TrainingError(
            f"{metric.name} of task {task.name!r} is {value} on validation data, and has no ideal: give the "
            "metric an ideal=, or make its values positive, so that the best epoch can be chosen"
        )
    return 1 / value if metric.higher_is_better else value
