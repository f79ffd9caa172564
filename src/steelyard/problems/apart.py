"""Rows of several tasks, each with inputs of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from steelyard.problems.rows import DataRows, Draw, Passes, ReadBatch, Reader
from steelyard.problems.task import Task


class Apart(DataRows):
    """The rows of each task, one after the other under one numbering; a batch is of one task.

    Args:
        parts: by task.
    """

    def __init__(self, parts: Mapping[str, DataRows]) -> None:
        self.parts = dict(parts)
        self._sections: dict[str, slice] = {}
        start = 0
        for name, part in self.parts.items():
            self._sections[name] = slice(start, start := start + len(part))
        self._length = start

    def __len__(self) -> int:
        return self._length

    @property
    def sections(self) -> dict[str, slice]:
        return self._sections

    def labelled(self, task: Task) -> Tensor:
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[self._sections[task.name]] = self.parts[task.name].labelled(task)
        return mask

    def labels(self, task: Task, chosen: Tensor) -> Tensor | None:
        return self.parts[task.name].labels(task, chosen[self._sections[task.name]])

    def reader(self, ahead: bool) -> Reader:
        return _TaskBatches({name: part.reader(ahead) for name, part in self.parts.items()}, self._sections)

    def some(self, rows: Tensor) -> Apart:
        return Apart({name: part.some(_within(rows, self._sections[name])) for name, part in self.parts.items()})

    def evaluation(self, tasks: Sequence[Task]) -> Passes:
        """Of these tasks' rows alone: a network has nothing to say of the others."""
        passes = {task.name: self.parts[task.name].evaluation([task]) for task in tasks}

        def read(batch_size: int) -> Iterator[ReadBatch]:
            for name, own in passes.items():
                for batch in own(batch_size):
                    yield _of_task(batch, name, self._sections[name].start)

        return read


class _TaskBatches:
    """Reads each batch from the rows of its task."""

    def __init__(self, readers: Mapping[str, Reader], sections: Mapping[str, slice]) -> None:
        self.readers, self.sections = readers, sections

    def __call__(self, draws: Sequence[Draw]) -> Iterator[ReadBatch]:
        whose = [self._task(draw) for draw in draws]
        own: dict[str, list[Draw]] = {}
        for name, draw in zip(whose, draws, strict=True):
            own.setdefault(name, []).append(Draw(draw.rows - self.sections[name].start, draw.seed))
        readings = {name: self.readers[name](asked) for name, asked in own.items()}
        for name in whose:
            yield _of_task(next(readings[name]), name, self.sections[name].start)

    def _task(self, draw: Draw) -> str:
        first, last = int(draw.rows.min()), int(draw.rows.max())
        return next(name for name, here in self.sections.items() if here.start <= first and last < here.stop)


def _within(rows: Tensor, section: slice) -> Tensor:
    own: Tensor = rows[(rows >= section.start) & (rows < section.stop)]
    return own - int(section.start)


def _of_task(batch: ReadBatch, name: str, start: int) -> ReadBatch:
    return ReadBatch(batch.rows + start, batch.inputs, {name: batch.targets[name]})
