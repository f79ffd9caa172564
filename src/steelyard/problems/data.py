"""Training, validation and test rows, in whatever form they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from steelyard.errors import ProblemError
from steelyard.problems.apart import Apart
from steelyard.problems.batches_for_rows import WHAT_TO_GIVE, size_of_batch
from steelyard.problems.rows import DataRows
from steelyard.problems.stream import Stream

Readable = Dataset[Any] | DataLoader[Any] | Callable[[], DataLoader[Any]]
"""Rows that are read when they are needed."""
GivenData = DataRows | Readable | Mapping[str, DataRows | Readable]


@dataclass(init=False)
class Data:
    """Training rows, validation rows (they choose the epoch) and test rows (read once).

    Args:
        train, validation, test: each a `Split`, in memory; or a map-style ``Dataset`` of ``(inputs, {task: target})``,
            a ``DataLoader`` over one, or a function that returns it; or by task one of these, where each task has
            inputs of its own.
        description: of the division, for ``steelyard problems``.

    Raises:
        ProblemError: rows that come in an order of their own, tasks' own rows for one part and not for another.

    Example:
        >>> from steelyard.problems import Data, Split
        >>> rows = Split(torch.zeros(5, 3), {"a": torch.zeros(5)})
        >>> list(Data(train=rows, validation=rows, test=rows).splits())
        ['train', 'validation', 'test']
        >>> pairs = [(torch.zeros(3), {"a": 0.0}), (torch.ones(3), {"a": 1.0})]  # anything with len() and [row]
        >>> len(Data(train=pairs, validation=pairs, test=pairs).train)
        2
    """

    train: DataRows
    validation: DataRows
    test: DataRows
    description: str

    def __init__(self, train: GivenData, validation: GivenData, test: GivenData, description: str = "") -> None:
        self.train = _rows(train, "train data")
        self.validation = _rows(validation, "validation data")
        self.test = _rows(test, "test data")
        self.description = description

    def splits(self) -> dict[str, DataRows]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def _rows(given: Any, where: str) -> DataRows:
    if isinstance(given, DataRows):
        return given
    if isinstance(given, Mapping):
        if not given:
            raise ProblemError(f"{where}: no task has any rows")
        return Apart({name: _rows(part, f"{where} of {name!r}") for name, part in given.items()})
    if callable(given) and not isinstance(given, Dataset):
        given = given()
    if isinstance(given, tuple) or not (isinstance(given, DataLoader) or hasattr(given, "__getitem__")):
        raise ProblemError(
            f"{where}: {type(given).__name__} is none of what it may be: a Split, a map-style Dataset, a DataLoader or "
            f"a function that returns one, or by task one of these{_hint(given)}"
        )
    return Stream.of(given, where)


def _hint(given: Any) -> str:
    if isinstance(given, tuple) and given and all(size_of_batch(each) is not None for each in given):
        return f". These are {len(given)} batches. {WHAT_TO_GIVE}"
    iterable = " (an IterableDataset or a generator has no row numbers, which seeds need)"
    return iterable if hasattr(given, "__iter__") and not isinstance(given, tuple) else ""
