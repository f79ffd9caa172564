"""Do the data fit the tasks? Asked once, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steelyard.errors import ProblemError
from steelyard.problems.task import Data, Split, Task


def check_data(name: str, tasks: Sequence[Task], data: Data) -> None:
    """Raise a `ProblemError` where the data do not fit the tasks of the problem of this name."""
    if not isinstance(data, Data):
        raise ProblemError(f"problem {name!r}: load() returned {type(data).__name__}, not a Data")
    for part, split in data.splits().items():
        where = f"problem {name!r}, {part} data"
        _check_inputs(where, split)
        for task in tasks:
            _check_targets(where, task, split)
    for task in tasks:
        _check_marks(f"problem {name!r}", task, data)


def _check_inputs(where: str, split: Split) -> None:
    inputs = split.inputs if isinstance(split.inputs, tuple) else (split.inputs,)
    if not inputs or not all(isinstance(tensor, Tensor) for tensor in inputs):
        raise ProblemError(f"{where}: inputs must be a torch tensor or a tuple of them")
    for tensor in inputs:
        _check_kind(where, "the inputs", tensor)
    if len(split) == 0:
        raise ProblemError(f"{where}: no rows")
    for tensor in inputs:
        if len(tensor) != len(split):
            raise ProblemError(f"{where}: inputs have {len(split)} and {len(tensor)} rows")
        finite = torch.isfinite(tensor)
        if not finite.all():
            row, *place = (~finite).nonzero()[0].tolist()
            at = f"row {row}, column {place[0]}" if len(place) == 1 else f"row {row}"
            rows = int((~finite).flatten(1).any(1).sum()) if tensor.dim() > 1 else int((~finite).sum())
            raise ProblemError(
                f"{where}: the inputs hold NaN or inf in {rows} of {len(tensor)} rows, first at {at}. Leave these "
                "rows out in load(), or fill them, e.g. with the column's mean"
            )


def _check_targets(where: str, task: Task, split: Split) -> None:
    if task.name not in split.targets:
        raise ProblemError(f"{where}: no targets for task {task.name!r}; there are {sorted(split.targets)}")
    targets: object = split.targets[task.name]  # a user's load() may give anything
    if not isinstance(targets, Tensor):
        kind = type(targets).__name__
        raise ProblemError(f"{where}: targets of {task.name!r} are {kind}, not a torch tensor")
    _check_kind(where, f"targets of {task.name!r}", targets)
    if len(targets) != len(split):
        raise ProblemError(f"{where}: {len(targets)} targets of {task.name!r} for {len(split)} input rows")
    if not task.labelled(targets).any():
        raise ProblemError(f"{where}: every label of {task.name!r} is missing")
    if torch.isinf(targets).any():
        raise ProblemError(f"{where}: targets of {task.name!r} hold inf")


def _check_marks(where: str, task: Task, data: Data) -> None:
    """Among whole numbers -1 marks a missing label, which must not be one of the values."""
    targets = [split.targets[task.name] for split in data.splits().values()]
    if task.missing is not None or any(each.dtype.is_floating_point or each.dim() > 1 for each in targets):
        return
    values = sorted({value for each in targets for value in each.unique().tolist()})  # type: ignore[no-untyped-call]
    if -1 not in values:
        return
    if values[0] < -1 or values == [-1, 1]:
        raise ProblemError(
            f"{where}: targets of {task.name!r} are whole numbers, among which -1 marks a missing label, and these "
            f"run from {values[0]} to {values[-1]}. "
            + (
                "Give labels -1 and 1 as 0 and 1"
                if values == [-1, 1]
                else "Where -1 is a value, give them as fractions, with NaN for what is missing"
            )
        )


def _check_kind(where: str, what: str, tensor: Tensor) -> None:
    """Data are plain numbers, and no step asks for their gradients."""
    if tensor.layout != torch.strided:
        raise ProblemError(f"{where}: {what} are sparse ({tensor.layout}): call .to_dense() in load()")
    if tensor.is_meta:
        raise ProblemError(f"{where}: {what} are on the meta device, without any numbers")
    if tensor.requires_grad:
        raise ProblemError(f"{where}: {what} require gradients, as parameters do: call .detach() in load()")
