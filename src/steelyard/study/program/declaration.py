"""What a program says of itself before anything is planned: tasks with their metrics, epochs, and its learning rate."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steelyard import __version__
from steelyard.errors import ProgramError, UnknownNameError
from steelyard.io.typed import typed
from steelyard.problems import metrics as ready
from steelyard.problems.task import Metric

READY: dict[str, Metric] = {
    **{name: getattr(ready, name) for name in ("accuracy", "error_rate", "balanced_error", "pearson", "r2")},
    **{name: getattr(ready, name) for name in ("rmse", "mae", "auc", "average_precision")},
}
"""Metrics whose direction and best value are known, by the names that they have in `steelyard.problems`."""
DIRECTIONS = {"max": True, "min": False}

MetricLike = str | Metric
TaskLike = MetricLike | Sequence[MetricLike]


@dataclass(frozen=True)
class DeclaredMetric:
    """A figure of merit that the program computes itself."""

    name: str
    higher_is_better: bool
    ideal: float | None = None
    percent: bool = False


@dataclass(frozen=True)
class DeclaredTask:
    """A task; its first metric chooses the epoch and carries the verdict."""

    name: str
    metrics: tuple[DeclaredMetric, ...]


@dataclass(frozen=True)
class ProgramDeclaration:
    """What a program trains when nobody restricts it."""

    tasks: tuple[DeclaredTask, ...]
    epochs: int
    learning_rate: float | None
    main: str | None
    versions: dict[str, str]

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def only(self, names: Sequence[str]) -> list[DeclaredTask]:
        """The tasks of these names, in the order in which they were declared."""
        for name in names:
            if name not in self.task_names:
                raise UnknownNameError("task of the program:", name, self.task_names)
        return [task for task in self.tasks if task.name in names]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProgramDeclaration:
        declared: ProgramDeclaration = typed(cls, values)
        return declared


def declare(
    tasks: Mapping[str, TaskLike], epochs: int, learning_rate: float | None = None, main: str | None = None
) -> ProgramDeclaration:
    """Read what a program gives to `steelyard.trial`.

    Raises:
        ProgramError: it makes no sense, by name.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        raise ProgramError(
            f'tasks={tasks!r}: give each task its metric by name, {{"seg": "miou:max", "depth": "rmse"}}'
        )
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ProgramError(f"epochs={epochs!r} must be a whole number of at least 1")
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ProgramError(f"learning_rate={learning_rate!r} must be positive and finite")
    if main is not None and main not in tasks:
        raise UnknownNameError("task of the program, main =", main, tasks)
    found = tuple(DeclaredTask(_named(name), _metrics(name, given)) for name, given in tasks.items())
    versions = {
        "steelyard": __version__,
        "torch": str(torch.__version__),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    return ProgramDeclaration(found, epochs, None if learning_rate is None else float(learning_rate), main, versions)


def _named(name: object) -> str:
    if not isinstance(name, str) or not name or any(each in name for each in "=,;() \t\n"):
        raise ProgramError(f"task name {name!r}: use a word without spaces or any of =,;()")
    return name


def _metrics(task: str, given: TaskLike) -> tuple[DeclaredMetric, ...]:
    several: tuple[object, ...] = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not several:
        raise ProgramError(f'task {task!r} has no metric: give it one by name, {task!r}: "accuracy"')
    found = tuple(_metric(task, metric) for metric in several)
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ProgramError(f"task {task!r} has two metrics of one name: {', '.join(names)}")
    return found


def _metric(task: str, given: object) -> DeclaredMetric:
    """``"accuracy"``, ``"perplexity:min"``, ``"miou:max:1"`` with its best value, or a `Metric`."""
    if isinstance(given, Metric):
        return DeclaredMetric(given.name, given.higher_is_better, given.ideal, given.percent)
    if not isinstance(given, str):
        raise ProgramError(f'task {task!r}: {given!r} is no metric: give its name, "accuracy" or "perplexity:min"')
    name, *rest = (piece.strip() for piece in given.split(":"))
    if not rest and name in READY:
        known = READY[name]
        return DeclaredMetric(name, known.higher_is_better, known.ideal, known.percent)
    if not name or len(rest) not in (1, 2) or rest[0] not in DIRECTIONS:
        raise ProgramError(
            f'task {task!r}: metric {given!r}: say which way is better, "{name or "metric"}:max" or '
            f'"{name or "metric"}:min", with the best value behind it where there is one ("{name or "metric"}:max:1"). '
            f"Known without: {', '.join(READY)}"
        )
    try:
        ideal = float(rest[1]) if len(rest) == 2 else None
    except ValueError:
        raise ProgramError(f"task {task!r}: metric {given!r}: its best value {rest[1]!r} is no number") from None
    return DeclaredMetric(name, DIRECTIONS[rest[0]], ideal)
