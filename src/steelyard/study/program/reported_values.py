"""The numbers of an epoch as a program gives them, held to what it has declared."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from steelyard.errors import ProgramError, UnknownNameError
from steelyard.study.program.declaration import DeclaredMetric, DeclaredTask

Value = float | Tensor
Values = Mapping[str, Value | Mapping[str, Value]]
"""By task: its metric, or its metrics by name."""


def numbers(task: DeclaredTask, values: Values, part: str, epoch: int, only_main: bool = False) -> list[float]:
    """The metrics of a task, in the order in which they were declared."""
    if task.name not in values:
        raise ProgramError(
            f"epoch {epoch}: the {part} values have no {task.name!r}, only {', '.join(values) or 'none'}"
        )
    given = values[task.name]
    wanted = task.metrics[:1] if only_main else task.metrics
    if not isinstance(given, Mapping):
        if len(wanted) > 1:
            names = ", ".join(metric.name for metric in wanted)
            raise ProgramError(
                f"epoch {epoch}: task {task.name!r} has several metrics on {part} data, give {names} by name"
            )
        given = {wanted[0].name: given}
    known = [metric.name for metric in task.metrics]
    for name in given:
        if name not in known:
            raise UnknownNameError(f"metric of task {task.name!r}:", name, known)
    missing = [metric.name for metric in wanted if metric.name not in given]
    if missing:
        raise ProgramError(f"epoch {epoch}: the {part} values of {task.name!r} have no {', '.join(missing)}")
    return [_number(task.name, metric, given[metric.name], part, epoch) for metric in wanted]


def _number(task: str, metric: DeclaredMetric, given: Value, part: str, epoch: int) -> float:
    what = f"epoch {epoch}: {metric.name} of {task!r} on {part} data"
    try:
        value = float(given.detach() if isinstance(given, Tensor) else given)
    except (TypeError, ValueError) as error:
        raise ProgramError(f"{what} is {given!r}, not a number") from error
    if not math.isfinite(value):
        raise ProgramError(f"{what} is {value}: training diverged, or the metric is not defined there")
    if metric.percent and not 0 <= value <= 1:
        raise ProgramError(f"{what} is {value:g}: give it as a share, from 0 to 1")
    return value
