"""Targets that are whole numbers: -1 marks a missing label among them, and classes are counted from 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steelyard.errors import ProblemError
from steelyard.problems.task import Task


def check_marks(
    where: str, name: str, targets: Sequence[Tensor], classes: int | None = None, all_there: bool = True
) -> None:
    """Refuse targets of one task in which -1, which marks a missing label, must be one of the values.

    Args:
        targets: all of the task that are at hand, one number a row; others say nothing.
        classes: how many there are, if they are classes.
        all_there: whether these are all; of a few, values below -1 tell that -1 may be one of the others.
    """
    columns = [each.reshape(-1) for each in targets if len(each) and each.numel() == len(each)]
    if not columns or any(each.dtype.is_floating_point or each.dtype == torch.bool for each in columns):
        return
    values = sorted({value for each in columns for value in each.unique().tolist()})  # type: ignore[no-untyped-call]
    if -1 not in values and (all_there or values[0] >= -1):
        return
    run = (
        f"{where}: targets of {name!r} are whole numbers, among which -1 marks a missing label, and these run from "
        f"{values[0]} to {values[-1]}"
    )
    if values == [-1, 1] and all_there:
        raise ProblemError(f"{run}. Give labels -1 and 1 as 0 and 1")
    if values[0] < -1:
        raise ProblemError(f"{run}. Where -1 is a value, give them as fractions, with NaN for what is missing")
    if classes is not None and all_there and values == list(range(-1, classes - 1)):  # as many, and one too low
        raise ProblemError(
            f"{run}, where {classes} classes are 0 to {classes - 1}. Where -1 is a class, count them from 0; where it "
            f"marks what is missing, give classes={classes - 1}, or labels as fractions with NaN for it"
        )


def check_whole(where: str, task: Task, targets: Tensor) -> None:
    """Refuse fractions as labels of classes: they would be trained on as the whole number below."""
    if task.classes is None or not targets.dtype.is_floating_point:
        return
    known = targets[targets.isfinite()]
    fractions = known[known != known.floor()]
    if len(fractions):
        raise ProblemError(
            f"{where}: targets of {task.name!r} hold {float(fractions[0]):g}, and its labels are classes, whole "
            f"numbers from 0 to {task.classes - 1}: round them in load(), or make it regression({task.name!r})"
        )
