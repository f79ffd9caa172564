"""Do the data fit the tasks? Asked once, before anything is trained."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from steelyard.errors import ProblemError, SteelyardError, UnknownNameError
from steelyard.problems.apart import Apart
from steelyard.problems.batches_for_rows import WHAT_TO_GIVE
from steelyard.problems.data import Data
from steelyard.problems.rows import DataRows, Draw, ReadBatch, Split
from steelyard.problems.sources import batch_digest
from steelyard.problems.stream import Stream
from steelyard.problems.task import Task
from steelyard.problems.whole_numbers import check_marks, check_whole

PIECE = 2**20
"""Numbers that are looked at at a time."""
Dimensions = dict[str, tuple[int, int]]
"""By task, how many dimensions inputs and targets have, as far as there is one answer."""


def check_data(name: str, tasks: Sequence[Task], data: Data) -> None:
    """Raise a `ProblemError` where the data do not fit the tasks of the problem of this name."""
    if not isinstance(data, Data):
        raise ProblemError(f"problem {name!r}: load() returned {type(data).__name__}, not a Data")
    _check_alike(name, data)
    dimensions = {
        part: _check_rows(f"problem {name!r}, {part} data", tasks, rows) for part, rows in data.splits().items()
    }
    _check_alike_in_shape(f"problem {name!r}", dimensions)
    for part in ("validation", "test"):
        _check_all_drawn(f"problem {name!r}, {part} data", data.splits()[part])
    _check_labels(f"problem {name!r}", tasks, data)


def _check_alike(name: str, data: Data) -> None:
    apart = [part for part, rows in data.splits().items() if isinstance(rows, Apart)]
    if 0 < len(apart) < 3:
        raise ProblemError(
            f"problem {name!r}: tasks have rows of their own in the {' and '.join(apart)} data alone: give all three "
            "parts by task"
        )


def _check_rows(where: str, tasks: Sequence[Task], rows: DataRows) -> Dimensions:
    if isinstance(rows, Split):
        _check_inputs(where, rows)
        for task in tasks:
            _check_targets(where, task, rows)
        return _dimensions(rows.inputs, rows.targets)
    if isinstance(rows, Stream):
        return _check_stream(where, tasks, rows)
    found: Dimensions = {}
    if isinstance(rows, Apart):
        known = [task.name for task in tasks]
        for name in rows.parts:
            if name not in known:
                raise UnknownNameError(f"{where}: task with rows of its own:", name, known)
        for task in tasks:
            if task.name not in rows.parts:
                raise ProblemError(f"{where}: no rows of task {task.name!r}; there are {sorted(rows.parts)}")
            found |= _check_rows(f"{where} of {task.name!r}", [task], rows.parts[task.name])
    return found


def _check_stream(where: str, tasks: Sequence[Task], stream: Stream) -> Dimensions:
    """A few rows are read, twice: what is learnt from must follow from seeds."""
    if len(stream) == 0:
        raise ProblemError(f"{where}: no rows")
    first, again = (read_sample(where, stream) for _ in range(2))
    if batch_digest(first) != batch_digest(again):
        raise ProblemError(
            f"{where}: the same rows read twice from the same seed differ. Draw augmentation from the generators of "
            "torch, NumPy (np.random.…) or random, which are seeded for every batch, and not from one of the Dataset's "
            "own (np.random.default_rng(), torch.Generator())"
        )
    for tensor in (leaf for leaf in tree_leaves(first.inputs) if isinstance(leaf, Tensor) and leaf.dim()):
        if len(tensor) == len(first.rows) and (missing := tensor.isnan()).any():  # masks may hold inf
            row = int(first.rows[int(missing.nonzero()[0, 0])])
            raise ProblemError(f"{where}: the inputs of row {row} hold NaN: leave such rows out, or fill them")
    for name, (targets, _) in first.targets.items():
        if torch.isinf(targets).any():
            raise ProblemError(f"{where}: targets of {name!r} hold inf")
    known = {task.name for task in tasks}
    for name in first.targets:
        if name not in known:
            raise UnknownNameError(f"{where}: target of the rows:", name, known)
    for task in tasks:
        mask = stream.labelled(task)
        if len(mask) != len(stream):
            raise ProblemError(f"{where}: the Dataset's targets[{task.name!r}] has {len(mask)} of {len(stream)} rows")
        if not mask.any():
            raise ProblemError(f"{where}: every label of {task.name!r} is missing")
    return _dimensions(first.inputs, {name: targets for name, (targets, _) in first.targets.items()})


def read_sample(where: str, stream: Stream) -> ReadBatch:
    """A few rows of a stream, or an error that says which part of the data they are of."""
    try:
        return next(stream.reader(ahead=False)([Draw(stream.sample(), seed=0)]))
    except SteelyardError as error:
        raise ProblemError(f"{where}: {error}") from error
    except Exception as error:
        raise ProblemError(f"{where}: reading rows {stream.sample().tolist()} failed: {_described(error)}") from error


def _described(error: Exception) -> str:
    """The error, and the line where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}: {frame.line})"


def _check_inputs(where: str, split: Split) -> None:
    inputs = split.inputs if isinstance(split.inputs, tuple) else (split.inputs,)
    if not inputs or not all(isinstance(tensor, Tensor) for tensor in inputs):
        raise ProblemError(
            f"{where}: inputs must be a torch tensor or a tuple of them: write torch.tensor(inputs).float(), or take "
            "split(inputs, targets), which makes tensors of arrays and frames"
        )
    for tensor in inputs:
        _check_kind(where, "the inputs", tensor)
    if len(split) == 0:
        raise ProblemError(f"{where}: no rows")
    for tensor in inputs:
        if len(tensor) != len(split):
            raise ProblemError(f"{where}: inputs have {len(split)} and {len(tensor)} rows")
        unusable = _unusable(tensor).nonzero()[:, 0]
        if len(unusable):
            row = int(unusable[0])
            place = (~torch.isfinite(tensor[row])).nonzero()[0].tolist()
            at = f"row {row}, column {place[0]}" if len(place) == 1 else f"row {row}"
            raise ProblemError(
                f"{where}: the inputs hold NaN or inf in {len(unusable)} of {len(tensor)} rows, first at {at}. Leave "
                "these rows out in load(), or fill them, e.g. with the column's mean"
            )


def _unusable(tensor: Tensor) -> Tensor:
    """Mask [N] of the rows that hold NaN or inf; piece by piece, so that a mapped file need not fit into memory."""
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return torch.zeros(len(tensor), dtype=torch.bool)
    rows = max(1, PIECE * len(tensor) // max(1, tensor.numel()))
    pieces = [tensor[start : start + rows] for start in range(0, len(tensor), rows)]
    return torch.cat([~torch.isfinite(piece).reshape(len(piece), -1).all(1) for piece in pieces])


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


def _check_all_drawn(where: str, rows: DataRows) -> None:
    """What is evaluated is read once a row, in order: a sampler that leaves rows out would not be followed."""
    for each in rows.parts.values() if isinstance(rows, Apart) else [rows]:
        if isinstance(each, Stream) and (left := each.never_drawn):
            raise ProblemError(
                f"{where}: the DataLoader's sampler leaves out {left} of {len(each)} rows, and all rows are evaluated, "
                "each once: give those that belong here alone, Subset(dataset, numbers) of torch.utils.data"
            )


def _check_labels(where: str, tasks: Sequence[Task], data: Data) -> None:
    found = [_targets_at_hand(rows, tasks) for rows in data.splits().values()]
    for task in tasks:
        targets = [by_task[task.name] for by_task, _ in found if task.name in by_task]
        if task.missing is None:
            check_marks(where, task.name, targets, task.classes, all_there=all(whole for _, whole in found))
        for each in targets:
            check_whole(where, task, each)


def _targets_at_hand(rows: DataRows, tasks: Sequence[Task]) -> tuple[dict[str, Tensor], bool]:
    """Targets by task, and whether they are all that there are: else those of a few rows that are read."""
    if isinstance(rows, Apart):
        parts = [_targets_at_hand(rows.parts[task.name], [task]) for task in tasks]
        return {name: each for by_task, _ in parts for name, each in by_task.items()}, all(whole for _, whole in parts)
    if not isinstance(rows, Stream):
        return (rows.targets, True) if isinstance(rows, Split) else ({}, False)
    known = rows.known_targets()
    if all(task.name in known for task in tasks):
        return known, True
    return {name: each for name, (each, _) in read_sample("data", rows).targets.items()} | known, False


def _check_alike_in_shape(where: str, dimensions: Mapping[str, Dimensions]) -> None:
    """A part whose inputs and targets both have a dimension more than another's is of batches."""
    for (part, of_part), (other, of_other) in permutations(dimensions.items(), 2):
        for task in of_part.keys() & of_other.keys():
            if all(more > less for more, less in zip(of_part[task], of_other[task], strict=True)):
                raise ProblemError(
                    f"{where}: in the {part} data inputs and targets of {task!r} have a dimension more than in the "
                    f"{other} data: these are batches, not rows. {WHAT_TO_GIVE}"
                )


def _dimensions(inputs: Any, targets: Mapping[str, Tensor]) -> Dimensions:
    sizes = {leaf.dim() for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)}
    return {name: (min(sizes), each.dim()) for name, each in targets.items()} if len(sizes) == 1 else {}


def _check_kind(where: str, what: str, tensor: Tensor) -> None:
    """Data are plain numbers, and no step asks for their gradients."""
    if tensor.layout != torch.strided:
        raise ProblemError(f"{where}: {what} are sparse ({tensor.layout}): call .to_dense() in load()")
    if tensor.is_meta:
        raise ProblemError(f"{where}: {what} are on the meta device, without any numbers")
    if tensor.requires_grad:
        raise ProblemError(f"{where}: {what} require gradients, as parameters do: call .detach() in load()")
