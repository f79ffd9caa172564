"""An engine that trains nothing: what a network reaches is made up, from its tasks and its seed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from steelyard.study.running.engines.interface import Job
from steelyard.study.running.events import Event, Finished
from steelyard.study.trial import Curves, Failed, Result, Trial

Error = Callable[[Trial, str, str], float]
"""(trial, task, ``validation`` or ``test``) -> the error of its network at the task; NaN where training fails."""
Halves = Callable[[Trial, str], list[list[float]]]
"""(trial, task) -> by epoch, the error on either half of the validation rows; on all of them it is their mean."""


class Imaginary:
    """An `Engine`; keeps what it was asked to train."""

    def __init__(self, error: Error, halves: Halves | None = None) -> None:
        self.error, self.halves = error, halves
        self.trained: list[Trial] = []

    def get_ready(self) -> None:
        pass

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[_Session]:
        yield _Session(self)


class _Session:
    places = 2

    def __init__(self, engine: Imaginary) -> None:
        self.engine, self.waiting = engine, list[Trial]()

    def submit(self, trials: tuple[Trial, ...]) -> None:
        self.waiting += trials

    def events(self) -> Iterator[tuple[Trial, Event]]:
        while self.waiting:
            trial = self.waiting.pop(0)
            self.engine.trained.append(trial)
            yield trial, self._event(trial)

    def _event(self, trial: Trial) -> Event:
        tables = {
            kind: {task: self.engine.error(trial, task, kind) for task in trial.tasks}
            for kind in ("validation", "test")
        }
        if any(value != value for table in tables.values() for value in table.values()):
            return Failed("TrainingError: the training loss is nan", "Traceback")
        flat = {task: [1.0] * trial.epochs for task in trial.tasks}
        validation = {task: [value] * trial.epochs for task, value in tables["validation"].items()}
        halves, epoch = {}, 1
        if self.engine.halves is not None:
            halves = {task: self.engine.halves(trial, task) for task in trial.tasks}
            validation = {task: [sum(both) / 2 for both in of] for task, of in halves.items()}
            scores = [sum(math.log(of[each]) for of in validation.values()) for each in range(trial.epochs)]
            epoch = 1 + scores.index(min(scores))
        test = {task: [value] for task, value in tables["test"].items()}
        seconds = float(len(trial.tasks))
        curves = Curves(flat, flat, validation, halves=halves)
        return Finished(Result(test, test, epoch, 10, seconds, 10.0, 5.0, curves))
