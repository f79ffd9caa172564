"""Batches where rows belong: ``list(loader)``, say. They have the form of rows, with a dimension more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

WHAT_TO_GIVE = (
    "The study makes the batches: give the Dataset, or a function that returns its DataLoader, as `lambda: "
    "DataLoader(dataset, batch_size=64)`, or all rows in one piece, as `Split(torch.cat(inputs), {'a': torch.cat(a)})`"
)


def size_of_batch(item: Any) -> int | None:
    """How many inputs an item holds, if all its arrays, inputs and targets, hold as many."""
    if not isinstance(item, Sequence) or len(item) != 2:
        return None
    inputs, targets = ({_length(leaf) for leaf in tree_leaves(part)} for part in item)
    return inputs.pop() if len(inputs) == 1 and inputs == targets else None


def _length(leaf: Any) -> int | None:
    return len(leaf) if isinstance(leaf, Tensor | np.ndarray) and leaf.ndim else None


def of_a_loader(items: Sequence[Any]) -> bool:
    """Whether these are what a loader leaves: as many rows in each but for the last, which has fewer.

    As many in each may also be rows that have a label at every position.
    """
    *others, last = (size_of_batch(item) for item in items)
    return (
        bool(others) and last is not None and others[0] is not None and set(others) == {others[0]} and last < others[0]
    )


def positions(inputs: Any, targets: Mapping[str, Tensor]) -> int:
    """How many positions each of these rows has, put together as [N, positions, …]; 0 where they differ or are none."""
    parts = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    sizes = {part.shape[1] if part.dim() > 1 else 0 for part in (*parts, *targets.values())}
    return sizes.pop() if len(sizes) == 1 and parts and targets else 0
