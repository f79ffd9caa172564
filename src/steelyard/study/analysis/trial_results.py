"""What the trials of a plan found, looked up by method, setting, task and seed."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from steelyard.study.analysis.earlier_looks import EarlierLooks
from steelyard.study.analysis.statistics import NEAR_ZERO, Array, counted_floor, relative_changes
from steelyard.study.planning.plan import Plan, PlannedTask
from steelyard.study.storage.store import Trained
from steelyard.study.trial import Account, Failed, Result, Trial

Metrics = list[float]  # of one task, in the task's order


@dataclass(frozen=True)
class TrialResults:
    """The finished and failed trials of a plan, looked up by what they belong to."""

    plan: Plan
    results: dict[Trial, Result]
    failed: dict[Trial, Failed]
    trained: dict[Trial, Trained] = field(default_factory=dict)  # when, and with what code and data
    changed: str = ""  # of code, data and versions since then
    looks: EarlierLooks = field(default_factory=EarlierLooks)  # at some of its seeds

    def trials(self, method: str, setting: int) -> list[tuple[int, Trial]]:
        """(seed, trial) of one method in one setting."""
        return [(seed, trial) for seed in self.plan.seeds for trial in self.plan.trials_of(method, setting, seed)]

    def too_many_failed(self, method: str, setting: int) -> bool:
        """Whether a network of every seed has failed, or of every one but one, so that no interval can be had."""
        failed = {seed for seed, trial in self.trials(method, setting) if trial in self.failed}
        return len(failed) >= max(len(self.plan.seeds) - 1, 1)

    @cached_property
    def _by_task(self) -> dict[tuple[str, int, str], dict[int, Result]]:
        index: dict[tuple[str, int, str], dict[int, Result]] = {}
        for method in self.plan.methods:
            for setting in range(len(self.plan.settings)):
                for seed, trial in self.trials(method.name, setting):
                    for task in self.plan.serves(method.name, trial.tasks) if trial in self.results else ():
                        index.setdefault((method.name, setting, task), {})[seed] = self.results[trial]
        return index

    def metrics(self, method: str, setting: int, task: str, last: bool = False) -> dict[int, Metrics]:
        """Seed -> test metrics of one task, at the chosen epoch or at the last one; NaN where one has no value.

        Training ends with an error there (`evaluate.tested`); stores of earlier versions hold NaN and infinities.
        """
        found = self._by_task.get((method, setting, task), {})
        values = {seed: (result.last if last else result.test)[task] for seed, result in found.items()}
        return {seed: [each if math.isfinite(each) else math.nan for each in of] for seed, of in values.items()}

    def steps(self, method: str, setting: int, task: str) -> dict[int, int]:
        """Seed -> steps that the network with this task took, where they were counted."""
        found = self._by_task.get((method, setting, task), {})
        return {seed: result.steps for seed, result in found.items() if result.steps}

    def accounts(self, method: str, setting: int, task: str) -> dict[int, Account]:
        """Seed -> what a ledger kept of one task, where there was one."""
        found = self._by_task.get((method, setting, task), {})
        return {seed: result.ledger[task] for seed, result in found.items() if task in result.ledger}

    def complete(self, method: str, setting: int) -> dict[int, list[Result]]:
        """Seed -> results, for the seeds of which every network is finished."""
        by_seed: dict[int, list[Result | None]] = {}
        for seed, trial in self.trials(method, setting):
            by_seed.setdefault(seed, []).append(self.results.get(trial))
        return {
            seed: [result for result in results if result is not None]
            for seed, results in by_seed.items()
            if None not in results
        }

    def paired(self, task: PlannedTask, method: str, baseline: str, setting: int) -> tuple[Array, Array]:
        """The main metric of both methods on the seeds that both finished."""
        ours, theirs = self.metrics(method, setting, task.name), self.metrics(baseline, setting, task.name)
        seeds = [seed for seed in self.plan.seeds if seed in ours and seed in theirs]
        return np.array([ours[s][0] for s in seeds]), np.array([theirs[s][0] for s in seeds])

    def left_out(self, method: str, setting: int, task: str) -> dict[int, list[float]]:
        """Seed -> the main metric of one task without each part of its test rows, where it was taken."""
        found = self._by_task.get((method, setting, task), {})
        return {seed: result.left_out[task] for seed, result in found.items() if task in result.left_out}

    def has(self, method: str) -> bool:
        return any(planned.name == method for planned in self.plan.methods)

    def changes(
        self, method: str, baseline: str, setting: int, last: bool = False, among: Collection[int] | None = None
    ) -> Array:
        """Δm per seed: the mean over tasks of the mean over a task's metrics of the relative change, positive = better.

        Over the seeds (of those named) that both methods finished in all tasks; metrics whose baseline is zero are
        left out.
        Empty where nothing can be compared.
        """
        per_task = self._changes(method, baseline, setting, last, among)
        return np.array(np.mean(list(per_task.values()), axis=0)) if per_task else np.array([])

    def unchanged(self, method: str, baseline: str, setting: int) -> list[PlannedTask]:
        """The tasks that have no relative change, and so no part in Δm: the baseline's error is zero, or its value."""
        known = self._changes(method, baseline, setting)
        return [task for task in self.plan.tasks if task.name not in known] if known else []

    def _changes(
        self, method: str, baseline: str, setting: int, last: bool = False, among: Collection[int] | None = None
    ) -> dict[str, Array]:
        """Relative changes by seed, of the tasks that have any; worked out once, as words, floors and costs all ask."""
        asked = (method, baseline, setting, last, None if among is None else frozenset(among))
        if asked not in self._known_changes:
            self._known_changes[asked] = self._work_out_changes(method, baseline, setting, last, among)
        return self._known_changes[asked]

    @cached_property
    def _known_changes(self) -> dict[tuple[object, ...], dict[str, Array]]:
        return {}

    def _work_out_changes(
        self, method: str, baseline: str, setting: int, last: bool, among: Collection[int] | None
    ) -> dict[str, Array]:
        tasks = self.plan.tasks
        ours = [self.metrics(method, setting, task.name, last) for task in tasks]
        theirs = [self.metrics(baseline, setting, task.name, last) for task in tasks]
        seeds = [seed for seed in self.plan.seeds if all(seed in values for values in (*ours, *theirs))]
        seeds = [seed for seed in seeds if among is None or seed in among]
        per_task = {}
        for task, our, their in zip(tasks, ours, theirs, strict=True):
            per_metric = [
                relative_changes(
                    [our[seed][position] for seed in seeds],
                    [their[seed][position] for seed in seeds],
                    higher_is_better=metric.higher_is_better,
                    ideal=metric.ideal,
                )
                for position, metric in enumerate(task.metrics)
                if seeds
            ]
            usable = [change for change in per_metric if change is not None]
            if usable:
                per_task[task.name] = np.mean(usable, axis=0)
        return per_task

    def change_floor(self, method: str, baseline: str, setting: int, last: bool = False) -> float:
        """What Δm deviates by over seeds at least, where its metrics count test rows (`counted_floor`).

        √Σ (floor / |error of the baseline|)² over metrics, each by its part in the mean over metrics and tasks.
        """
        parts = []
        changes = self._changes(method, baseline, setting, last)
        known = [task for task in self.plan.tasks if task.name in changes]
        for task in known:
            ours, theirs = (self.metrics(each, setting, task.name, last) for each in (method, baseline))
            seeds = [seed for seed in self.plan.seeds if seed in ours and seed in theirs]
            for place, metric in enumerate(task.metrics):
                one, other = (np.array([side[seed][place] for seed in seeds]) for side in (ours, theirs))
                unit = abs(float((other if metric.ideal is None else metric.ideal - other).mean()))
                if unit > NEAR_ZERO:
                    floor = counted_floor(one - other, [*one, *other], task.test_rows, metric.counts)
                    parts.append(floor / unit / len(task.metrics) / len(known))
        return float(np.hypot.reduce(parts)) if parts else 0.0


def better_by(task: PlannedTask, ours: Array, theirs: Array) -> Array:
    """The differences of the main metric, signed so that positive is better."""
    return ours - theirs if task.metrics[0].higher_is_better else theirs - ours
