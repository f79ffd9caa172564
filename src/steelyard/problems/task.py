"""A task and its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.errors import ProblemError

Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Metric:
    """A figure of merit over all labelled rows of a split.

    Args:
        name: shown in tables, e.g. ``"accuracy"``.
        function: ``function(outputs [N, ...], targets [N, ...]) -> float``. Where the task has ``statistics``, these
            stand in for the outputs.
        higher_is_better: the direction.
        ideal: the perfect value where there is one (1 for accuracy, R², AUC; 0 for errors), else ``None``.
            Relative changes are taken on the error, ``|ideal - value|``.
        percent: show as a percentage.

    Example:
        >>> from steelyard.problems import Metric
        >>> def largest(outputs, targets):
        ...     return float((outputs - targets).abs().max())
        >>> worst = Metric("worst error", largest, higher_is_better=False, ideal=0.0)
        >>> worst.function(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]))
        0.5
    """

    name: str
    function: Callable[[Tensor, Tensor], float]
    higher_is_better: bool
    ideal: float | None = None
    percent: bool = False


@dataclass(frozen=True)
class JointMetric:
    """A figure of merit of all tasks together, shown beside theirs and never judged or used to choose.

    Args:
        name: shown in tables, e.g. ``"test error"``.
        function: ``function(outputs by task [N, ...], targets by task [N, ...]) -> float``, each of the test rows that
            have a label of the task.
        higher_is_better, ideal, percent: as a `Metric` has them.

    Example:
        >>> from steelyard.problems import JointMetric
        >>> def mean_error(outputs, targets):
        ...     return sum(float((outputs[task] - targets[task]).abs().mean()) for task in outputs) / len(outputs)
        >>> both = JointMetric("mean error", mean_error, higher_is_better=False, ideal=0.0)
        >>> both.function({"a": torch.zeros(2), "b": torch.zeros(2)}, {"a": torch.ones(2), "b": torch.zeros(2)})
        0.5
    """

    name: str
    function: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], float]
    higher_is_better: bool
    ideal: float | None = None
    percent: bool = False


@dataclass(frozen=True)
class Task:
    """One task: a loss to train on and metrics to judge by.

    Args:
        name: unique within the problem.
        loss: ``loss(outputs, targets) -> scalar``, an ordinary mean loss; called with labelled rows only.
        metrics: the first one is the main metric; it chooses the epoch and carries the verdict.
        outputs: how many numbers the head puts out per row; for the problem's own ``head`` to read.
        missing: the target value that marks a missing label; by default NaN for floating-point targets and -1
            for integer ones. A row is unlabelled where its whole target is missing.
        statistics: ``statistics(outputs [n, ...], targets [n, ...]) -> Tensor [n, ...]``, what the metrics need to
            know of each row, for outputs too large to keep for all rows of a split (images): taken batch by
            batch, and given to the metrics in the outputs' place. Called with labelled rows only.
        equivalence: changes below this fraction of the single-task value count as no difference.
        label: a nice name for tables; the name by default.
        classes: labels are whole numbers from 0 to one less than this; refused where the data say otherwise.

    Example:
        >>> from steelyard.problems import Task, mae
        >>> task = Task("age", nn.functional.l1_loss, metrics=(mae,))
        >>> task.labelled(torch.tensor([30.0, float("nan")]))
        tensor([ True, False])
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: tuple[Metric, ...]
    outputs: int = 1
    missing: float | None = None
    statistics: Callable[[Tensor, Tensor], Tensor] | None = None
    equivalence: float = 0.01
    label: str = ""
    classes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or any(each in self.name for each in "=,;() \t\n"):
            raise ProblemError(f"task name {self.name!r}: use a word without spaces or any of =,;()")
        if not callable(self.loss):
            raise ProblemError(
                f"task {self.name!r}: loss={self.loss!r} must be a function of (outputs, targets), "
                "e.g. torch.nn.functional.mse_loss"
            )
        object.__setattr__(self, "metrics", _metrics(self.name, self.metrics))
        if not isinstance(self.equivalence, int | float) or not 0 <= self.equivalence < 1:
            raise ProblemError(f"task {self.name!r}: equivalence={self.equivalence!r} must be a number in [0, 1)")
        if not isinstance(self.label, str) or any(each in self.label for each in "\r\n"):
            raise ProblemError(f"task {self.name!r}: label={self.label!r} must be text of one line, for tables")
        if not self.label:
            object.__setattr__(self, "label", self.name)

    def labelled(self, targets: Tensor) -> Tensor:
        """Which rows have a label: targets [N, ...] -> bool [N]."""
        if targets.dtype == torch.bool:
            return torch.ones(len(targets), dtype=torch.bool, device=targets.device)
        if targets.dtype.is_floating_point:
            mark = math.nan if self.missing is None else self.missing
        else:
            mark = -1 if self.missing is None else self.missing
        missing = torch.isnan(targets) if math.isnan(mark) else torch.eq(targets, mark)
        return ~missing.flatten(1).all(1) if targets.dim() > 1 else ~missing


def _metrics(task: str, given: object) -> tuple[Metric, ...]:
    """A task's metrics, of which there must be one."""
    if not isinstance(given, tuple | list):
        given = (given,)
    if not given:
        raise ProblemError(f"task {task!r} has no metric: give metrics=(accuracy,) or another one")
    for place, metric in enumerate(given):
        if isinstance(metric, Metric):
            continue
        name = getattr(metric, "__name__", "")
        shown = f"the function {name}" if name.isidentifier() else repr(metric)
        raise ProblemError(
            f"task {task!r}: metrics[{place}] is {shown}, not a Metric. Take a ready one from steelyard.problems "
            "(accuracy, rmse, r2, …), or say what the function is called and which way is better: "
            f'Metric("{name if name.isidentifier() else "my metric"}", function, higher_is_better=True)'
        )
    names = [metric.name for metric in given]
    for name in names:
        if names.count(name) > 1:  # tables and CSV know them by name
            raise ProblemError(f"task {task!r} has two metrics {name!r}: names must be unique")
    return tuple(given)
