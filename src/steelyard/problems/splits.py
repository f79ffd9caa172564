"""From arrays to training, validation and test rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steelyard.errors import ProblemError, UnknownNameError
from steelyard.problems.data import Data
from steelyard.problems.rows import Split
from steelyard.problems.whole_numbers import check_marks

MISSING = "\0missing"
NUMBERS = "biufc"
"""Kinds of NumPy types: truth values, whole numbers, fractions, complex numbers."""


def split(
    inputs: Any,
    targets: Mapping[str, Any],
    *,
    seed: int = 0,
    validation: float = 0.2,
    test: float = 0.2,
    standardise: bool = False,
    standardise_targets: Collection[str] = (),
    groups: Any = None,
    stratify: Any = None,
) -> Data:
    """Divide rows at random into training, validation and test data.

    Args:
        inputs: NumPy array, torch tensor or data frame of numbers (columns of truth values, whole numbers and
            fractions may stand side by side), one row per example; or a tuple of them.
        targets: by task name, one array each. Missing labels are NaN, or -1 where the labels are integers.
        seed: of the random division; the same seed gives the same rows.
        validation, test: fractions of the rows.
        standardise: bring every column of the inputs to mean 0 and deviation 1, by the mean and deviation of the
            training rows. In a tuple, parts of whole numbers (for an ``nn.Embedding``) and of bytes stay as they are.
        standardise_targets: names of regression tasks whose targets are brought to the same scale likewise.
        groups: by row, whose it is (a patient, a day, as text or numbers): all rows of a group are in one part, so that
            test rows have no siblings in training.
        stratify: the name of a task, or an array, one value per row: each part gets its share of every value, and where
            there are many, of every range of them; missing ones are a value of their own.

    Raises:
        ProblemError: text among the numbers, lengths that differ, fractions that leave no rows, bytes to be
            standardised, `groups` and `stratify` at once.

    Example:
        >>> from steelyard.problems import split
        >>> data = split(torch.arange(20.0).reshape(10, 2), {"a": torch.arange(10.0)}, validation=0.2, test=0.3)
        >>> [len(rows) for rows in data.splits().values()]
        [5, 2, 3]
    """
    if not targets:
        raise ProblemError("split() needs targets: a mapping from task name to one label per row")
    several = isinstance(inputs, tuple)
    parts = [_tensor(part, "inputs") for part in (inputs if several else (inputs,))]
    labels = {name: _tensor(values, f"targets of {name!r}") for name, values in targets.items()}
    count = len(parts[0])
    for what, tensor in [*(("further inputs", part) for part in parts[1:]), *labels.items()]:
        if len(tensor) != count:
            raise ProblemError(f"split(): {len(tensor)} rows of {what!r} for {count} rows of inputs")
    for name in standardise_targets:
        if name not in labels:
            raise UnknownNameError("task in standardise_targets:", name, labels)
    if standardise and not several:
        parts = [_as_fractions(parts[0])]
    for name in standardise_targets:
        check_marks("split()", name, [labels[name]])
        labels[name] = _without_marks(labels[name])
    if isinstance(stratify, str):
        if stratify not in labels:
            raise UnknownNameError("task in stratify:", stratify, labels)
        stratify = labels[stratify]
    rows = _rows(count, seed, validation, test, groups, stratify)

    def divided(tensor: Tensor, scale: bool) -> tuple[Tensor, ...]:
        pieces = tuple(tensor[chosen] for chosen in rows)
        if not tensor.dtype.is_floating_point:
            return pieces
        # Scaled before it is rounded to float32: a column of time stamps keeps its small differences.
        return tuple(piece.float() for piece in (standardised(*pieces) if scale else pieces))

    inputs_of = [divided(part, standardise) for part in parts]
    labels_of = {name: divided(values, name in standardise_targets) for name, values in labels.items()}
    train, valid, held_out = (
        Split(
            tuple(pieces[index] for pieces in inputs_of) if several else inputs_of[0][index],
            {name: pieces[index] for name, pieces in labels_of.items()},
        )
        for index in range(3)
    )
    sizes = "/".join(str(len(chosen)) for chosen in rows)
    return Data(train, valid, held_out, f"{sizes} rows for training/validation/test, drawn by seed {seed}")


def _rows(
    count: int, seed: int, validation: float, test: float, groups: Any, stratify: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers for training, validation and test."""
    if groups is not None and stratify is not None:
        raise ProblemError("split(): groups= keeps groups whole, which leaves stratify= nothing to share out: give one")
    for what, values in (("groups", groups), ("stratify", stratify)):
        if values is not None and (np.ndim(values) != 1 or len(values) != count):
            raise ProblemError(f"split(): {what} must have one value for each of the {count} rows")
    if groups is not None:
        named = _with_gaps(groups)
        if (gone := np.flatnonzero(named == MISSING if named.dtype.kind == "U" else named != named)).size:
            raise ProblemError(
                f"split(): groups= has no value for {len(gone)} rows, the first of them row {gone[0]}: give each of "
                "these rows a group of its own, or leave them out"
            )
        return divide_groups(named, seed, validation, test)
    if stratify is not None:
        return divide_evenly(_with_gaps(stratify), seed, validation, test)
    return divide(count, seed, validation, test)


def _with_gaps(values: Any) -> npt.NDArray[Any]:
    """Numbers with NaN, or text with `MISSING`, where there is none: what can be put in order."""
    array = np.asarray(values)
    if array.dtype.kind != "O":
        return array
    gone = [value is None or type(value).__name__ == "NAType" or bool(value != value) for value in array]
    known = [value for value, missing in zip(array, gone, strict=True) if not missing]
    if not any(gone):
        return np.asarray(known)
    if all(isinstance(value, int | float | np.number | np.bool_) for value in known):
        ranks = np.full(len(array), np.nan)  # of numbers that a fraction may not hold
        ranks[~np.array(gone)] = np.unique(np.asarray(known), return_inverse=True)[1].reshape(-1)
        return ranks
    return np.array([MISSING if missing else str(value) for value, missing in zip(array, gone, strict=True)])


def divide_groups(
    groups: npt.NDArray[Any], seed: int, validation: float = 0.2, test: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """As `divide`, with the rows of each group in one part.

    Groups are drawn in random order into test, then into validation, each for as long as that brings the part nearer to
    its size.
    """
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 3:
        raise ProblemError(f"split(): {len(names)} groups cannot be divided into training, validation and test")
    divide(len(groups), seed, validation, test)  # what it refuses
    left = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    part = np.zeros(len(names), dtype=int)
    for number, share in ((2, test), (1, validation)):
        wanted, held = share * len(groups), 0
        for group in list(left):
            size = int(sizes[group])
            if len(left) > number and abs(held + size - wanted) < abs(held - wanted):
                left.remove(group)
                part[group], held = number, held + size
        if not held:  # all are too large
            left.remove(smallest := min(left, key=lambda group: int(sizes[group])))
            part[smallest] = number
    found = part[inverse.reshape(-1)]
    train, valid, held_out = (torch.from_numpy(np.flatnonzero(found == number)) for number in range(3))
    return train, valid, held_out


def divide_evenly(
    values: npt.NDArray[Any], seed: int, validation: float = 0.2, test: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """As `divide`, with every value's share in every part, to within a row.

    Rows are put in order by value, equal ones at random, and each part takes rows at even steps.
    """
    _, valid, held_out = divide(len(values), seed, validation, test)  # for the sizes, and what it refuses
    generator = np.random.default_rng(seed)
    _, ranks = np.unique(values, return_inverse=True)
    left = np.lexsort((generator.random(len(values)), ranks.reshape(-1)))
    found = []
    for size in (len(held_out), len(valid)):
        places = np.floor((np.arange(size) + generator.random()) * len(left) / size).astype(int)
        found.append(torch.from_numpy(np.sort(left[places])))
        left = np.delete(left, places)
    return torch.from_numpy(np.sort(left)), found[1], found[0]


def divide(count: int, seed: int, validation: float = 0.2, test: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers for training, validation and test, drawn without replacement."""
    sizes = [round(count * validation), round(count * test)]
    if min(validation, test) <= 0 or min(*sizes, count - sum(sizes)) < 1:
        raise ProblemError(f"validation={validation} and test={test} of {count} rows leave an empty part")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    valid, held_out, train = torch.split(order, [*sizes, count - sum(sizes)])
    return train, valid, held_out


def deal(strata: Tensor, folds: int, seed: int) -> Tensor:
    """The fold of every row, 0 … folds - 1, drawn at random; each fold gets its share of every stratum.

    Args:
        strata: [N], whole numbers, e.g. the classes; zeros where rows are all of one kind.
        folds: how many.
        seed: of the random division.
    """
    order = torch.randperm(len(strata), generator=torch.Generator().manual_seed(seed))
    order = order[strata[order].argsort(stable=True)]
    dealt = torch.empty_like(order)
    dealt[order] = torch.arange(len(order)) % folds
    return dealt


def in_fold(dealt: Tensor, fold: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers for training, validation (the rows of the next fold) and test (the fold's own)."""
    following = (fold + 1) % (int(dealt.max()) + 1)
    chosen = ((dealt != fold) & (dealt != following), dealt == following, dealt == fold)
    train, validation, test = (mask.nonzero()[:, 0] for mask in chosen)
    return train, validation, test


def standardised(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Every column minus the training rows' mean, over their deviation; constant columns become 0, NaN stays."""
    mean = train.double().nanmean(0)
    deviation = (train.double() - mean).square().nanmean(0).sqrt()
    # A constant column has a deviation of rounding noise, which must not be blown up.
    deviation = torch.where(deviation > 1e-12 * mean.abs(), deviation, torch.inf)
    return tuple(((part.double() - mean) / deviation).to(train.dtype) for part in (train, *others))


def _as_fractions(inputs: Tensor) -> Tensor:
    if inputs.dtype == torch.uint8:
        raise ProblemError(
            "split(): standardise=True, but the inputs are bytes (uint8), which stay bytes: give them as fractions, "
            "e.g. inputs / 255, or scale them batch by batch with Problem(prepare=…)"
        )
    return inputs if inputs.dtype.is_floating_point else inputs.double()


def _without_marks(labels: Tensor) -> Tensor:
    """Labels as fractions, in which NaN and not -1 marks a missing one."""
    if labels.dtype.is_floating_point:
        return labels
    return labels.double().masked_fill(labels == -1, torch.nan)


def _tensor(values: Any, what: str) -> Tensor:
    tensor = values.detach().clone() if isinstance(values, Tensor) else torch.tensor(_numbers(values, what))
    if tensor.dim() == 0:
        raise ProblemError(f"split(): {what} are a single number, not one per row")
    # Bytes stay bytes where they are images or bits; labels and category numbers become what torch indexes by.
    whole = not tensor.dtype.is_floating_point
    return tensor.long() if whole and (tensor.dim() == 1 or tensor.dtype != torch.uint8) else tensor


def _numbers(values: Any, what: str) -> npt.NDArray[Any]:
    """An array of numbers; a table whose columns are of several types becomes one that holds them all."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        several = isinstance(values, list | tuple) and all(np.ndim(each) for each in values)
        whole = ". Of batches: torch.cat(…) makes one piece of them" if several else ""
        raise ProblemError(f"split(): {what} are no table of numbers: {str(error).rstrip('.')}{whole}") from error
    if array.dtype.kind in NUMBERS:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    names = list(getattr(values, "columns", ()))
    if array.ndim != 2:
        return _column(values, f"split(): {what}")
    columns = []
    for place in range(array.shape[1]):
        # As the frame has it: a column of its own is of one type, where the whole is of none.
        column = values.iloc[:, place] if hasattr(values, "iloc") else array[:, place]
        name = repr(names[place]) if place < len(names) else str(place)
        columns.append(_column(column, f"split(): {what}, column {name}"))
    return np.column_stack(columns) if columns else np.empty(array.shape)


def _column(values: Any, where: str) -> npt.NDArray[Any]:
    """A column of numbers; None and what stands for it in nullable columns become NaN."""
    array = np.asarray(values)
    if array.dtype.kind in NUMBERS:
        return array
    missing = [value is None or type(value).__name__ == "NAType" for value in array.ravel()]
    for value, gone in zip(array.ravel(), missing, strict=True):
        if not gone and not isinstance(value, int | float | np.number | np.bool_):
            shown = value.item() if isinstance(value, np.generic) else value
            raise ProblemError(
                f"{where} holds {shown!r}, which is no number: encode text as numbers (pandas.get_dummies), leave out "
                "what is none, and give missing values as NaN"
            )
    numbers = [np.nan if gone else value for value, gone in zip(array.ravel(), missing, strict=True)]
    # NumPy's own choice: whole numbers and truth values alone stay whole.
    found = np.asarray(numbers).reshape(array.shape)
    if found.dtype.kind not in NUMBERS:
        raise ProblemError(f"{where} holds a whole number that 64 bits do not: give it as a fraction, or scale it")
    return found
