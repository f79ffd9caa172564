"""Run a plan: train what is not yet in the store, and write down what comes back. This process is the only writer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from steelyard.base.specs import Spec
from steelyard.errors import StoreError
from steelyard.io.console import make_console
from steelyard.study.analysis.judging import judge_plan
from steelyard.study.analysis.origins import stale_note
from steelyard.study.judgement import Judgement
from steelyard.study.planning.arms import Arm
from steelyard.study.planning.planner import check_workers
from steelyard.study.planning.planner import plan as make_plan
from steelyard.study.planning.plans import Plan
from steelyard.study.planning.tuning import ROUNDS, attempts, choose
from steelyard.study.running.pool import Pool, start_server
from steelyard.study.running.stops import ending_in_order
from steelyard.study.running.worker import Warned
from steelyard.study.storage.checkpoint import remove_checkpoint, tidy
from steelyard.study.storage.store import Store
from steelyard.study.trial import Failed, Trial


def run(
    plan: Plan, store: Path | str, *, workers: int = 2, progress: bool | Progress = True, reuse_any: bool = False
) -> Judgement:
    """Train every trial of a plan that the store does not hold yet, and judge all of them.

    Where the plan leaves something to be chosen on validation data, the trials for that come first.

    Failed trials are recorded with their traceback and do not stop the others; the next run tries them again.
    Stopped at any moment, by Ctrl-C or ``kill -9``, the same call goes on where it was: finished trials are never
    repeated and running ones resume from their last checkpoint, with the same numbers as without the stop.

    Args:
        plan: from `steelyard.study.plan`.
        store: the SQLite file; its checkpoints lie beside it in a folder while trials run.
        workers: trials at a time, each a process with one thread.
        reuse_any: take finished trials also where they were trained with other code, data or versions.
        progress: True shows a bar on stderr; a `rich.progress.Progress` gets a task of its own.

    Raises:
        StoreLockedError: another process writes this store.
        StoreError: the store cannot be used, or the disk is full.
        KeyboardInterrupt: after Ctrl-C, once the workers are stopped. SIGTERM and SIGHUP end the process as they do,
            but not before.

    Example:
        >>> from steelyard.study import plan, run
        >>> made = plan("digits", ["single-task", "equal"], seeds=1, epochs=1)
        >>> run(made, folder / "digits.sqlite", progress=False).problem
        'digits'
    """
    check_workers(workers)
    with ending_in_order(), Store(store, write=True) as opened:
        if reuse_any:
            plan = dataclasses.replace(plan, also=tuple(opened.origins(plan.identity)))
        opened.add_plan(plan.to_dict())
        tidy(opened.checkpoints)
        for place in range(ROUNDS):
            tried = attempts(plan, place)
            trials = list(dict.fromkeys(each.trial for each in tried))
            _train(plan, opened, trials, workers, progress, "tuning, ")
            plan = choose(plan, tried, opened.results(trials, plan.also))
        if plan.tuning is not None:
            opened.add_plan(plan.to_dict())
        _train(plan, opened, plan.trials, workers, progress)
        return judge_plan(plan, opened)


def compare(
    problem: str,
    methods: Sequence[Arm | Spec | str],
    *,
    store: Path | str,
    workers: int = 2,
    progress: bool | Progress = True,
    reuse_any: bool = False,
    **options: Any,
) -> Judgement:
    """Plan a study and run it: ``run(plan(problem, methods, **options), store)``.

    Example:
        >>> from steelyard.study import compare
        >>> methods = ["single-task", "equal"]
        >>> judgement = compare("digits", methods, store=folder / "digits.sqlite", seeds=1, epochs=1, progress=False)
        >>> judgement.methods
        ['single-task', 'equal']
    """
    check_workers(workers)
    start_server()  # imports while the plan is made
    return run(make_plan(problem, methods, **options), store, workers=workers, progress=progress, reuse_any=reuse_any)


def _train(
    plan: Plan, store: Store, trials: list[Trial], workers: int, progress: bool | Progress, phase: str = ""
) -> None:
    """Train those of these trials that the store does not hold, and show a bar if there are any."""
    waiting = store.unfinished(trials, plan.also)
    if not waiting:
        return
    start_server()
    try:
        with _progress(progress) as bar:
            if note := stale_note(plan, store, waiting):
                bar.console.print(note, markup=False, highlight=False)
            _work(plan, store, waiting, workers, _Meter(bar, plan, trials, waiting, phase))
    finally:
        tidy(store.checkpoints)


def _work(plan: Plan, store: Store, waiting: list[Trial], workers: int, meter: _Meter) -> None:
    with Pool(plan.reference, waiting, store.checkpoints, workers, plan.origin) as pool:
        for trial, message in pool:
            if isinstance(message, str):
                raise StoreError(message)
            if isinstance(message, int):
                meter.advance(trial, message)
                continue
            if isinstance(message, Warned):
                meter.warned(trial, message)
                continue
            if isinstance(message, Failed):
                store.add_failure(trial, message)
                meter.failed(trial, message)
            else:
                store.add_result(trial, message)
            # Only now that it is stored. One whose process died (no traceback) can still go on from there.
            if not (isinstance(message, Failed) and not message.traceback):
                remove_checkpoint(store.checkpoints / f"{trial.key}.pt")
            meter.ended(trial)


class _Meter:
    """One line of progress, in training steps, so that the time left is known long before the first trial ends."""

    def __init__(self, bar: Progress, plan: Plan, trials: list[Trial], waiting: list[Trial], phase: str) -> None:
        self.bar, self.plan, self.total, self.phase = bar, plan, len(trials), phase
        self.done, self.failures = len(trials) - len(waiting), 0
        self.steps = dict.fromkeys(waiting, 0)
        self.warnings: set[str] = set()
        self.task = bar.add_task("", total=sum(plan.steps(trial) for trial in waiting))
        self._describe()

    def advance(self, trial: Trial, epochs: int) -> None:
        self._move(trial, self.plan.steps(trial) * epochs // trial.epochs)

    def ended(self, trial: Trial) -> None:
        self.done += 1
        self._move(trial, self.plan.steps(trial))
        self._describe()

    def failed(self, trial: Trial, failed: Failed) -> None:
        self.failures += 1
        what = f"{trial.method} {'/'.join(trial.tasks)}" if len(trial.tasks) == 1 else trial.method
        self.bar.console.print(f"{what}, seed {trial.seed} failed: {failed.error}", style="red", markup=False)

    def warned(self, trial: Trial, warned: Warned) -> None:
        """Print a warning once, not once per trial."""
        if warned.text not in self.warnings:
            self.warnings.add(warned.text)
            self.bar.console.print(f"{trial.method}: {warned.text}", style="yellow", markup=False)

    def _move(self, trial: Trial, steps: int) -> None:
        self.bar.advance(self.task, steps - self.steps[trial])
        self.steps[trial] = steps

    def _describe(self) -> None:
        failures = f", {self.failures} failed" if self.failures else ""
        self.bar.update(self.task, description=f"{self.phase}{self.done} of {self.total} trials{failures}")


@contextmanager
def _progress(progress: bool | Progress) -> Iterator[Progress]:
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
