"""What a network learns from: the training rows with a label of any of its tasks, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from steelyard.problems.problem import Problem
from steelyard.problems.rows import Draw, ReadBatch, Reader, Split, Targets
from steelyard.problems.task import Inputs, Task
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.training.sampling import completed, kept_labels, order_of, probe_rows, used_rows
from steelyard.study.trial import SIZE, derive_seed


class Material:
    """Training rows and the labels that may be seen of them.

    Attributes:
        labels: mask [N] by task of the labels that it learns from.
        used: mask [N] of the rows that have any of them; the others are left out.
    """

    def __init__(
        self, problem: Problem, tasks: Sequence[Task], rows: RowsOnDevice, labels: Mapping[str, Tensor], seed: int = 0
    ) -> None:
        self.problem, self.tasks, self.rows, self.labels, self.seed = problem, tasks, rows, labels, seed
        self.used = used_rows(labels)
        self._gaps = {name: mask for name, mask in labels.items() if not torch.equal(mask, self.used)}

    @classmethod
    def of(
        cls,
        problem: Problem,
        tasks: Sequence[Task],
        seed: int,
        fractions: Mapping[str, float] | None = None,
        rows: RowsOnDevice | None = None,
    ) -> Material:
        """Of a seed, with the given fraction of each task's labels; all of them where none is given.

        ``rows``: the training rows where batches are wanted; by default on the CPU.
        """
        rows = rows or RowsOnDevice(problem.data(seed).train, tasks)
        labels = {
            task.name: kept_labels(task, rows.split, (fractions or {}).get(task.name, 1.0), seed) for task in tasks
        }
        return cls(problem, tasks, rows, labels, seed)

    def order(self, batch_size: int, epoch: int, least: int = 0, sampling: str = SIZE) -> list[Tensor]:
        """Row numbers of each batch of an epoch."""
        return list(order_of(self.rows.split, self.used, batch_size, self.seed, epoch, least, sampling))

    def are_all(self, order: Sequence[Tensor]) -> bool:
        """Whether these batches have every row that may be learnt from."""
        left = self.used.clone()
        for rows in order:
            left[rows] = False
        return not left.any()

    def read(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Inputs, Targets]]:
        """Prepared inputs and targets of these batches; one without any label of the tasks has no targets."""
        if isinstance(self.rows.split, Split):
            yield from map(self.batch, order)
            return
        draws = [Draw(rows, derive_seed(self.seed, "read", epoch, step)) for step, rows in enumerate(order)]
        yield from map(self._prepared, self._reader(draws))

    @cached_property
    def _reader(self) -> Reader:
        return self.rows.split.reader(ahead=True)

    def probes(self, batch_size: int, epoch: int, step: int, rows: Tensor) -> list[tuple[Inputs, Targets]]:
        """Two further batches, independent of the one of these rows, with the same tasks.

        Of the same task, where tasks have rows of their own.
        """
        used = self.used
        for here in self.rows.split.sections.values():
            if here.start <= int(rows[0]) < here.stop:
                used = torch.zeros_like(used)
                used[here] = self.used[here]
        found = []
        for k, drawn in enumerate(probe_rows(used, batch_size, self.seed, epoch, step)):
            seed = derive_seed(self.seed, "probe", epoch, step, k)
            found.append(self.batch(completed(drawn, self.labels.values(), rows, seed), seed))
        return found

    def batch(self, rows: Tensor, seed: int = 0) -> tuple[Inputs, Targets]:
        """Prepared inputs and targets of these rows; reading them starts from a seed."""
        if not isinstance(self.rows.split, Split):
            (read,) = self.rows.split.reader(ahead=False)([Draw(rows, seed)])
            return self._prepared(read)
        targets = {task.name: self._targets_of(task.name, rows) for task in self.tasks}
        return self.problem.prepare(self.rows.inputs(rows)), targets

    def _targets_of(self, task: str, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The batch's targets, and which of its rows they belong to (None = all)."""
        if (mask := self._gaps.get(task)) is None:
            return self.rows.targets(task, rows), None
        here = mask.index_select(0, rows).nonzero().squeeze(1)  # on the CPU: a device would have to be waited for
        return self.rows.targets(task, rows.index_select(0, here)), self.rows.hardware.to(here)

    def _prepared(self, read: ReadBatch) -> tuple[Inputs, Targets]:
        inputs, targets = self.rows.moved(read, self._gaps)
        return self.problem.prepare(inputs), targets
