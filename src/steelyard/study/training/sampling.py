"""Which labels a trial may see, and in which order: decided by the seed alone, never by the method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from steelyard.problems.task import Split, Task
from steelyard.study.trial import derive_seed


def _generator(seed: int, *purpose: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def kept_labels(task: Task, split: Split, fraction: float, seed: int) -> Tensor:
    """Mask [N] of the labels that a task may train on: the given fraction of those it has, at least one.

    One permutation of the rows per seed serves all tasks and fractions: smaller fractions are subsets of larger
    ones, and tasks of the same fraction (and no gaps) keep the same rows.
    """
    available = task.labelled(split.targets[task.name])
    if fraction == 1.0:
        return available
    order = torch.randperm(len(split), generator=_generator(seed, "labels"))
    order = order[available[order]]
    kept = torch.zeros(len(split), dtype=torch.bool)
    kept[order[: max(1, round(fraction * len(order)))]] = True
    return kept


def used_rows(labels: Mapping[str, Tensor]) -> Tensor:
    """Mask [N] of the rows that have a label of any task; the others are no use."""
    return torch.stack(list(labels.values())).any(0)


def steps_per_epoch(rows: int, batch_size: int, least: int = 0) -> int:
    """How many batches `batches` makes of so many used rows."""
    steps = _steps_per_pass(rows, batch_size)
    return steps * _passes(steps, least)


def _steps_per_pass(rows: int, batch_size: int) -> int:
    full, rest = divmod(rows, batch_size)
    return full + (rest > 1 or (rest == 1 and full == 0))


def _passes(steps: int, least: int) -> int:
    """So many passes of so many steps make an epoch."""
    return max(1, -(-least // steps)) if steps else 1


def batches(used: Tensor, batch_size: int, seed: int, epoch: int, least: int = 0) -> Iterator[Tensor]:
    """Row numbers of each batch of one epoch: whole passes over the rows, one, or as many as make `least` steps.

    The order is drawn over all rows and then thinned, so that networks trained on different rows still meet
    those that they share in the same order. A last batch of a single row joins the one before: batch
    normalisation could not take it.
    """
    steps = _steps_per_pass(int(used.sum()), batch_size)
    for number in range(_passes(steps, least)):
        again = (number,) if number else ()
        order = torch.randperm(len(used), generator=_generator(seed, "batches", epoch, *again))
        order = order[used[order]]
        for step in range(steps):
            last = step == steps - 1
            yield order[step * batch_size :] if last else order[step * batch_size : (step + 1) * batch_size]


def probe_rows(used: Tensor, batch_size: int, seed: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    """Row numbers of two further batches, independent of the one at hand."""
    rows = used.nonzero().squeeze(1)
    generator = _generator(seed, "probes", epoch, step)
    draws = torch.randint(len(rows), (2, min(batch_size, len(rows))), generator=generator)
    return rows[draws[0]], rows[draws[1]]
