"""Which labels a trial may see, and in which order: decided by the seed alone, never by the method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from steelyard.problems.problem import temperature_of
from steelyard.problems.rows import DataRows
from steelyard.problems.stream import Stream
from steelyard.problems.task import Task
from steelyard.study.trial import SIZE, derive_seed


def _generator(seed: int, *purpose: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def kept_labels(task: Task, split: DataRows, fraction: float, seed: int) -> Tensor:
    """Mask [N] of the labels that a task may train on: the given fraction of those it has, at least one.

    One permutation of the rows per seed serves all tasks and fractions: smaller fractions are subsets of larger
    ones, and tasks of the same fraction (and no gaps) keep the same rows.
    """
    return kept_rows(split.labelled(task), fraction, seed)


def kept_rows(available: Tensor, fraction: float, seed: int) -> Tensor:
    """Mask [N] of the given fraction of the rows that are available, at least one."""
    if fraction == 1.0:
        return available
    order = torch.randperm(len(available), generator=_generator(seed, "labels"))
    order = order[available[order]]
    kept = torch.zeros(len(available), dtype=torch.bool)
    kept[order[: kept_count(len(order), fraction)]] = True
    return kept


def kept_count(available: int, fraction: float) -> int:
    """How many rows that is, of so many."""
    return max(1, round(fraction * available))


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


def order_of(
    rows: DataRows, used: Tensor, batch_size: int, seed: int, epoch: int, least: int = 0, sampling: str = SIZE
) -> Iterator[Tensor]:
    """Row numbers of each batch of one epoch, as `batches`; where tasks have rows of their own, each is of one task.

    A sampler of a DataLoader's own is followed as it is.
    """
    if isinstance(rows, Stream) and rows.has_own_order:
        for number in range(_passes(rows.own_steps, least)):
            yield from rows.own_order(derive_seed(seed, "batches", epoch, *((number,) if number else ())))
    elif rows.sections:
        yield from _one_task_each(rows, used, batch_size, seed, epoch, least, sampling)
    else:
        yield from batches(used, batch_size, seed, epoch, least)


def steps_of(rows: DataRows, used: Tensor, batch_size: int, least: int = 0) -> int:
    """How many batches `order_of` makes."""
    if isinstance(rows, Stream) and rows.has_own_order:
        return rows.own_steps * _passes(rows.own_steps, least)
    if rows.sections:
        steps = sum(_own_steps(rows, used, batch_size).values())
        return steps * _passes(steps, least)
    return steps_per_epoch(int(used.sum()), batch_size, least)


def _one_task_each(
    rows: DataRows, used: Tensor, batch_size: int, seed: int, epoch: int, least: int, sampling: str
) -> Iterator[Tensor]:
    """Batches of one task each, in random order: as many in all as the tasks' passes have, shared out by `sampling`."""
    own = _own_steps(rows, used, batch_size)
    total = sum(own.values()) * _passes(sum(own.values()), least)
    shares = shared_out(total, list(own.values()), sampling)
    orders = []
    for name, share in zip(own, shares, strict=True):
        mask = torch.zeros_like(used)
        mask[rows.sections[name]] = used[rows.sections[name]]
        orders.append(batches(mask, batch_size, seed, epoch, share))
    whose = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor(shares))
    if len(shares) > 1:
        whose = whose[torch.randperm(total, generator=_generator(seed, "tasks", epoch))]
    for place in whose.tolist():
        yield next(orders[place])


def _own_steps(rows: DataRows, used: Tensor, batch_size: int) -> dict[str, int]:
    """Batches of one pass over the rows of each task that has any."""
    counts = {name: int(used[here].sum()) for name, here in rows.sections.items()}
    return {name: _steps_per_pass(count, batch_size) for name, count in counts.items() if count}


def shared_out(total: int, sizes: Sequence[int], sampling: str) -> list[int]:
    """`total` batches divided among tasks of these sizes: whole numbers, at least one each, nearest to the shares.

    ``size``: by size; ``even``: alike; ``temperature(5)``: by size to the power of 1/5.
    """
    power = 1 / temperature_of(sampling)
    shares = [size**power for size in sizes]
    exact = [(total - len(sizes)) * share / sum(shares) for share in shares]  # beyond one each
    if power == 1 and total % sum(sizes) == 0:
        return [size * (total // sum(sizes)) for size in sizes]
    found = [1 + math.floor(each) for each in exact]
    nearest = sorted(range(len(sizes)), key=lambda place: (math.floor(exact[place]) - exact[place], place))
    for place in nearest[: total - sum(found)]:
        found[place] += 1
    return found


def probe_rows(used: Tensor, batch_size: int, seed: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    """Row numbers of two further batches, independent of the one at hand, of these rows."""
    rows = used.nonzero().squeeze(1)
    generator = _generator(seed, "probes", epoch, step)
    draws = torch.randint(len(rows), (2, min(batch_size, len(rows))), generator=generator)
    return rows[draws[0]], rows[draws[1]]


def completed(drawn: Tensor, labels: Iterable[Tensor], batch: Tensor, seed: int) -> Tensor:
    """These rows and, for each task that the batch has and they lack, one more with its label.

    A rare label may be missing in a batch. The mean over the rows with a label stays that of independent draws.

    Args:
        drawn: row numbers.
        labels: mask [N] of each task's labels.
        batch: row numbers of the batch at hand.
    """
    more, generator = [], torch.Generator().manual_seed(seed)
    for mask in labels:
        if mask[batch].any() and not mask[drawn].any():
            there = mask.nonzero().squeeze(1)
            more.append(there[torch.randint(len(there), (1,), generator=generator)])
    return torch.cat([drawn, *more])
