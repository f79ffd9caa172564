"""The rows of a split where a trial computes: moved there once if they fit, else batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from steelyard.problems.data import Data
from steelyard.problems.rows import DataRows, Passes, ReadBatch, Split, Targets, take_from
from steelyard.problems.task import Inputs, Task
from steelyard.study.training.batch import labelled_targets
from steelyard.study.training.hardware import ON_CPU, Hardware


def fits(needed: int, free: int, sharing: int = 1) -> bool:
    """Whether data of so many bytes go to a device once and for all.

    Of the bytes that are free there, a trial has its share, and leaves half of that to its network, its activations
    and its optimizer.
    """
    return 2 * needed * sharing <= free


def bytes_of(data: Data, tasks: Sequence[Task]) -> int:
    """Bytes of all inputs and of the targets of these tasks, as far as they are in memory and for all tasks."""
    return sum(_bytes(_tensors(split, tasks)) for split in data.splits().values() if isinstance(split, Split))


def _tensors(split: Split, tasks: Sequence[Task]) -> list[Tensor]:
    inputs = split.inputs if isinstance(split.inputs, tuple) else (split.inputs,)
    return [*inputs, *(split.targets[task.name] for task in tasks)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class RowsOnDevice:
    """A split of whose rows batches are taken.

    Args:
        split: as the problem loads it, on the CPU.
        tasks: whose targets are wanted.
        hardware: where batches are wanted.
        stays: move all rows there now. Otherwise a batch travels from pinned memory when it is taken.

    Attributes:
        split: on the CPU, as it was loaded.
    """

    def __init__(self, split: DataRows, tasks: Sequence[Task], hardware: Hardware = ON_CPU, stays: bool = True) -> None:
        self.split, self.hardware, self.stays, self.tasks = split, hardware, stays, tasks
        if not isinstance(split, Split):  # read batch by batch
            return
        self._inputs, self._targets = split.inputs, {task.name: split.targets[task.name] for task in tasks}
        if stays and not hardware.is_cpu:
            inputs = self._inputs
            self._inputs = tuple(map(hardware.to, inputs)) if isinstance(inputs, tuple) else hardware.to(inputs)
            self._targets = {name: hardware.to(targets) for name, targets in self._targets.items()}

    def __len__(self) -> int:
        return len(self.split)

    def evaluation(self, batch_size: int) -> Iterator[tuple[Inputs, Targets]]:
        """All rows in order, on the device, with the labels that are there."""
        if not isinstance(self.split, Split):
            yield from (self.moved(read, {}) for read in self._passes(batch_size))
            return
        masks = {task.name: self.split.labelled(task) for task in self.tasks}
        for start in range(0, len(self), batch_size):
            rows, targets = slice(start, start + batch_size), {}
            for name, labelled in masks.items():
                here, mask = self.targets(name, rows), labelled[rows]
                places = None if mask.all() else self.hardware.to(mask.nonzero().squeeze(1))
                targets[name] = (here if places is None else here[places]), places
            yield self.inputs(rows), targets

    @cached_property
    def _passes(self) -> Passes:
        return self.split.evaluation(self.tasks)

    def moved(self, read: ReadBatch, allowed: Mapping[str, Tensor]) -> tuple[Inputs, Targets]:
        """What was read, on the device, with the labels that are there and that a mask of all rows allows."""
        targets: Targets = {}
        for task in self.tasks:
            if task.name in read.targets:
                here, places = labelled_targets(task, *read.targets[task.name])
                if task.name in allowed:
                    here, places = _only(allowed[task.name][read.rows], here, places)
                if len(here):
                    to = self.hardware.to
                    targets[task.name] = to(here), None if places is None else to(places)
        move = self.hardware.to
        return tree_map(lambda each: move(each) if isinstance(each, Tensor) else each, read.inputs), targets

    def inputs(self, rows: Tensor | slice) -> Inputs:
        """The inputs of these rows, on the device."""
        inputs = self._inputs
        return tuple(self._of(part, rows) for part in inputs) if isinstance(inputs, tuple) else self._of(inputs, rows)

    def targets(self, task: str, rows: Tensor | slice) -> Tensor:
        """The targets of these rows, on the device."""
        return self._of(self._targets[task], rows)

    def _of(self, tensor: Tensor, rows: Tensor | slice) -> Tensor:
        if self.stays:
            return take_from(tensor, rows if isinstance(rows, slice) else self.hardware.to(rows))
        return self.hardware.to(_pinned(tensor, rows))


def _only(allowed: Tensor, targets: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Those targets whose rows in the batch are allowed, of a mask [n]."""
    places = torch.arange(len(targets)) if places is None else places
    kept = allowed[places]
    return targets[kept], places[kept]


def _pinned(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    """These rows in memory that a device can read by itself. (Its allocator reuses none that is still on its way.)"""
    if not torch.cuda.is_available():
        return take_from(tensor, rows)
    count = len(range(*rows.indices(len(tensor)))) if isinstance(rows, slice) else len(rows)
    found = torch.empty(count, *tensor.shape[1:], dtype=tensor.dtype, pin_memory=True)
    return found.copy_(tensor[rows]) if isinstance(rows, slice) else torch.index_select(tensor, 0, rows, out=found)


def rows_of(data: Data, tasks: Sequence[Task], hardware: Hardware = ON_CPU) -> dict[str, RowsOnDevice]:
    """All splits, by name; on a device they stay together, if they fit."""
    stays = hardware.is_cpu or fits(bytes_of(data, tasks), hardware.free_memory(), hardware.sharing)
    return {name: RowsOnDevice(split, tasks, hardware, stays) for name, split in data.splits().items()}
