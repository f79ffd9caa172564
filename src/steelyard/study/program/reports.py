"""What a program has told, line by line in a file; a study reads there how far it is and what it found."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steelyard.errors import ProgramError
from steelyard.io.typed import typed
from steelyard.problems.task import Metric, Task
from steelyard.study.program.declaration import DeclaredTask
from steelyard.study.training.evaluate import BestEpoch
from steelyard.study.trial import Curves, Result, Trial

ROWS = 10_000
"""As many rows as a program's validation data are taken to have, where a task makes no error at all."""


@dataclass(frozen=True)
class Report:
    """One line.

    Attributes:
        run, process: who wrote it.
        kind: ``asked`` (for its trial), ``start`` (of its network), ``epoch`` (reported), or ``refused`` (`error` says
            what ended it).
        start: of each parameter of its network, by name and shape, a digest of what it starts from.
        validation: the main metric by task.
        test: all metrics by task, where validation chose this epoch so far, and of the last epoch.
        losses, weights, spreads: means over the epoch's steps, by task.
    """

    run: str
    process: int
    kind: str
    error: str = ""
    start: dict[str, str] = field(default_factory=dict)
    epoch: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    memory: float = 0.0


def tell(file: Path, report: Report) -> None:
    """Append a line, whole or not at all; one that a kill has torn does not spoil it."""
    text = json.dumps({name: value for name, value in dataclasses.asdict(report).items() if value})
    there = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(there, f"\n{text}\n".encode())
    finally:
        os.close(there)


class ReportReader:
    """Reads a file of reports that grows."""

    def __init__(self, file: Path) -> None:
        self.file, self.read = file, 0

    def new(self) -> Iterator[Report]:
        """The lines that have come since the last time, and are whole."""
        try:
            with self.file.open("rb") as opened:
                opened.seek(self.read)
                text = opened.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.splitlines():
            try:
                report: Report = typed(Report, json.loads(line))
            except (ValueError, TypeError):
                continue  # empty, or torn by a kill
            yield report


class History:
    """The epochs of a trial, over all starts of its program: a later start takes the place of what it repeats."""

    def __init__(self, tasks: Sequence[DeclaredTask], main: str | None) -> None:
        self.tasks, self.main = tasks, main
        self.epochs: list[Report] = []
        self.asked: set[str] = set()  # runs that did
        self.refused: dict[str, str] = {}  # by run
        self.start: dict[str, str] = {}

    def take(self, report: Report) -> None:
        """Take note of one line."""
        if report.kind == "asked":
            self.asked.add(report.run)
        elif report.kind == "refused":
            self.refused.setdefault(report.run, report.error)
        elif report.kind == "start":
            self.start = report.start
        elif report.kind == "epoch":
            self._epoch(report)

    def _epoch(self, report: Report) -> None:
        again = report.epoch <= len(self.epochs) and self.epochs[report.epoch - 1].run == report.run
        if again and report.process != self.epochs[report.epoch - 1].process:
            self.refused.setdefault(
                report.run,
                f"two of its processes report epoch {report.epoch}: report from the first alone (rank 0, which "
                "torch.distributed or the variable RANK tells)",
            )
        elif again:
            self.refused.setdefault(
                report.run,
                f"epoch {report.epoch} is reported twice: call steelyard.trial once, and train one network by it",
            )
        del self.epochs[report.epoch - 1 :]
        self.epochs.append(report)

    def best(self, before: int | None = None) -> BestEpoch:
        """What validation says of the epochs (before this one)."""
        best = choice_of(self.tasks, self.main)
        for report in self.epochs[: None if before is None else before - 1]:
            best.better(report.epoch, report.validation)
        return best

    def result(self, trial: Trial) -> Result:
        """What the finished trial found.

        Raises:
            ProgramError: epochs are missing.
        """
        done, best = len(self.epochs), self.best()
        if not best.ends(done, trial.epochs, trial.patience):
            told = f"reports {done} of {trial.epochs} epochs" if done else "reports nothing"
            raise ProgramError(f"the program ends without an error and {told}: trial.report(…) follows each epoch")
        chosen = best.epoch
        paces = [report.steps / report.seconds for report in self.epochs if report.seconds > 0]
        return Result(
            test=self.epochs[chosen - 1].test,
            last=self.epochs[-1].test,
            chosen_epoch=chosen,
            steps=sum(report.steps for report in self.epochs),
            seconds=sum(report.seconds for report in self.epochs),
            steps_per_second=statistics.median(paces) if paces else math.nan,
            peak_memory=max(report.memory for report in self.epochs),
            curves=Curves(
                losses=self._curve(trial.tasks, "losses"),
                weights=self._curve(trial.tasks, "weights"),
                validation=self._curve(trial.tasks, "validation"),
                weight_spreads=self._curve(trial.tasks, "spreads"),
            ),
            start=self.start,
        )

    def _curve(self, tasks: Iterable[str], kind: str) -> dict[str, list[float]]:
        return {task: [getattr(report, kind)[task] for report in self.epochs] for task in tasks}


def choice_of(tasks: Sequence[DeclaredTask], main: str | None) -> BestEpoch:
    """By which rule validation chooses the epoch: that of every study."""
    given = [
        Task(
            task.name,
            _nothing,
            tuple(Metric(m.name, _nothing, m.higher_is_better, m.ideal, m.percent) for m in task.metrics),
        )
        for task in tasks
    ]
    return BestEpoch(given, dict.fromkeys((task.name for task in tasks), ROWS), main)


def _nothing(outputs: object, targets: object) -> Any:
    raise NotImplementedError("the program computes it")
