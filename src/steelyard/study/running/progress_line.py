"""One line of progress while a study runs, and what is to be said above it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from steelyard.io.console import make_console
from steelyard.study.planning.plan import Plan
from steelyard.study.running.events import Epoch, Event, Finished, Lost, Started, Warned
from steelyard.study.trial import Failed, Trial

MOST_WARNINGS = 20


class Meter:
    """One line of progress, in training steps, so that the time left is known long before the first trial ends."""

    def __init__(self, bar: Progress, plan: Plan, trials: list[Trial], waiting: list[Trial], phase: str) -> None:
        self.bar, self.plan, self.total, self.phase = bar, plan, len(trials), phase
        self.done, self.failures = len(trials) - len(waiting), 0
        self.steps = dict.fromkeys(waiting, 0)
        self.running: dict[Trial, str] = {}  # and where
        self.warnings: set[str] = set()
        self.task = bar.add_task("", total=sum(plan.steps(trial) for trial in waiting))
        self._describe()

    def tell(self, trial: Trial, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, Epoch):
            self._move(trial, self.plan.steps(trial) * event.finished // trial.epochs)
        elif isinstance(event, Warned):
            self._warn(trial, event.text)
        elif isinstance(event, Started):
            self.running[trial] = event.place
            self._describe()
        else:
            self._end(trial, event)

    def _end(self, trial: Trial, event: Event) -> None:
        self.running.pop(trial, None)
        if isinstance(event, Lost):
            self._say(trial, f"is lost and tried again: {event.reason}", "yellow")
        if isinstance(event, Failed):
            self.failures += 1
            self._say(trial, f"failed: {event.error}", "red")
        if isinstance(event, Finished | Failed):
            self.done += 1
            self._move(trial, self.plan.steps(trial))
        self._describe()

    def _say(self, trial: Trial, what: str, style: str) -> None:
        name = f"{trial.method} {'/'.join(trial.tasks)}" if len(trial.tasks) == 1 else trial.method
        self.bar.console.print(f"{name}, seed {trial.seed} {what}", style=style, markup=False)

    def _warn(self, trial: Trial, text: str) -> None:
        """Print a warning once, not once per trial; of those that differ each time (by a number), the first few."""
        if text in self.warnings or len(self.warnings) > MOST_WARNINGS:
            return
        self.warnings.add(text)
        said = f"{trial.method}: {text}" if len(self.warnings) <= MOST_WARNINGS else "Further warnings are not shown."
        self.bar.console.print(said, style="yellow", markup=False)

    def _move(self, trial: Trial, steps: int) -> None:
        self.bar.advance(self.task, steps - self.steps[trial])
        self.steps[trial] = steps

    def _describe(self) -> None:
        said = [f"{self.phase}{self.done} of {self.total} trials"]
        if self.running:
            machines = len(set(self.running.values()))
            said.append(f"{len(self.running)} running" + (f" on {machines} machines" if machines > 1 else ""))
        if self.failures:
            said.append(f"{self.failures} failed")
        self.bar.update(self.task, description=", ".join(said))


@contextmanager
def progress_bar(progress: bool | Progress) -> Iterator[Progress]:
    if isinstance(progress, Progress):
        yield progress
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # A long memory: one slow method among fast ones should not make the time left jump.
    with Progress(
        *columns, console=make_console(stderr=True, quiet=not progress), disable=not progress, speed_estimate_period=300
    ) as bar:
        yield bar
