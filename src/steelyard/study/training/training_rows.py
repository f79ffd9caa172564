"""What a network learns from: the training rows with a label of any of its tasks, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steelyard.problems.problem import Problem
from steelyard.problems.task import Inputs, Task
from steelyard.study.training.batch import Targets
from steelyard.study.training.rows_on_device import Rows
from steelyard.study.training.sampling import kept_labels, used_rows


class Material:
    """Training rows and the labels that may be seen of them.

    Attributes:
        labels: mask [N] by task of the labels that it learns from.
        used: mask [N] of the rows that have any of them; the others are left out.
    """

    def __init__(self, problem: Problem, tasks: Sequence[Task], rows: Rows, labels: Mapping[str, Tensor]) -> None:
        self.problem, self.tasks, self.rows, self.labels = problem, tasks, rows, labels
        self.used = used_rows(labels)
        self._gaps = {name: mask for name, mask in labels.items() if not torch.equal(mask, self.used)}

    @classmethod
    def of(
        cls,
        problem: Problem,
        tasks: Sequence[Task],
        seed: int,
        fractions: Mapping[str, float] | None = None,
        rows: Rows | None = None,
    ) -> Material:
        """Of a seed, with the given fraction of each task's labels; all of them where none is given.

        ``rows``: the training rows where batches are wanted; by default on the CPU.
        """
        rows = rows or Rows(problem.data(seed).train, tasks)
        labels = {
            task.name: kept_labels(task, rows.split, (fractions or {}).get(task.name, 1.0), seed) for task in tasks
        }
        return cls(problem, tasks, rows, labels)

    def batch(self, rows: Tensor) -> tuple[Inputs, Targets]:
        """Prepared inputs and targets of these rows."""
        targets = {task.name: self._targets_of(task.name, rows) for task in self.tasks}
        return self.problem.prepare(self.rows.inputs(rows)), targets

    def _targets_of(self, task: str, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The batch's targets, and which of its rows they belong to (None = all)."""
        if (mask := self._gaps.get(task)) is None:
            return self.rows.targets(task, rows), None
        here = mask.index_select(0, rows).nonzero().squeeze(1)  # on the CPU: a device would have to be waited for
        return self.rows.targets(task, rows.index_select(0, here)), self.rows.hardware.to(here)
