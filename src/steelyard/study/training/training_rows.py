"""What a network learns from: the training rows with a label of any of its tasks, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steelyard.problems.problem import Problem
from steelyard.problems.task import Inputs, Split, Task
from steelyard.study.training.batch import Targets, targets_of
from steelyard.study.training.evaluate import take
from steelyard.study.training.sampling import kept_labels, used_rows


class Material:
    """Training rows and the labels that may be seen of them.

    Attributes:
        labels: mask [N] by task of the labels that it learns from.
        used: mask [N] of the rows that have any of them; the others are left out.
    """

    def __init__(self, problem: Problem, tasks: Sequence[Task], split: Split, labels: Mapping[str, Tensor]) -> None:
        self.problem, self.tasks, self.split, self.labels = problem, tasks, split, labels
        self.used = used_rows(labels)
        self._gaps = {name: mask for name, mask in labels.items() if not torch.equal(mask, self.used)}

    @classmethod
    def of(
        cls, problem: Problem, tasks: Sequence[Task], seed: int, fractions: Mapping[str, float] | None = None
    ) -> Material:
        """Of a seed, with the given fraction of each task's labels; all of them where none is given."""
        split = problem.data(seed).train
        labels = {task.name: kept_labels(task, split, (fractions or {}).get(task.name, 1.0), seed) for task in tasks}
        return cls(problem, tasks, split, labels)

    def batch(self, rows: Tensor) -> tuple[Inputs, Targets]:
        """Prepared inputs and targets of these rows."""
        targets = {
            task.name: targets_of(self.split.targets[task.name], self._gaps.get(task.name), rows) for task in self.tasks
        }
        return self.problem.prepare(take(self.split.inputs, rows)), targets
