"""Measure subsets of tasks by training a network for each, with what a study trains with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from steelyard.errors import GroupingError
from steelyard.grouping.cross_fitting import Array, values_of
from steelyard.grouping.proposals import Subset
from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.statistics import relative_changes
from steelyard.study.planning.plan import Plan, PlannedTask
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK, Result, Trial

SEED = 10_009
"""Subsets are tried on a seed of their own: what is chosen is judged on others, on which it had no luck yet."""

Halves = dict[Subset, dict[str, Array]]
"""By subset and task the gain on either half of the validation rows; one number where the halves have no value."""


class Measuring:
    """A `Measure` that trains; what the store holds already is not trained again.

    Args:
        plan: single tasks and one method, on the seed that subsets are tried on.
        store: open for writing.
        train: trains those of these trials that the store does not hold.

    Attributes:
        halves: of what was measured in full, for its noise.
    """

    def __init__(self, plan: Plan, store: Store, train: Callable[[Plan, list[Trial], str], None]) -> None:
        self.plan, self.store, self.train = plan, store, train
        self.halves: Halves = {}

    def __call__(self, subsets: Sequence[Subset], *, effort: float = 1.0) -> dict[Subset, dict[str, float]]:
        epochs = max(1, round(effort * self.plan.epochs))
        plan = dataclasses.replace(self.plan, epochs=epochs)
        alone = {trial.tasks[0]: trial for trial in plan.trials_of(SINGLE_TASK, 0, plan.seeds[0])}
        together = {subset: self._trial(plan, subset) for subset in subsets}
        share = "" if effort == 1.0 else f" for {epochs} epochs"
        self.train(plan, [*alone.values(), *together.values()], f"{counted(len(subsets), 'subset')} of tasks{share}, ")
        results = self.store.results([*alone.values(), *together.values()], plan.also)
        if missing := [task for task, trial in alone.items() if trial not in results]:
            raise GroupingError(f"{', '.join(missing)} could not be trained alone, and gains are measured against that")
        found = {
            subset: changes(plan, [results[trial]], {task: [results[alone[task]]] for task in trial.tasks})
            for subset, trial in together.items()
            if trial in results
        }
        if effort == 1.0:
            self.halves |= {subset: {task: each[0] for task, each in of.items()} for subset, of in found.items()}
        return {subset: gains(of) for subset, of in found.items()}

    @staticmethod
    def _trial(plan: Plan, subset: Subset) -> Trial:
        method = plan.methods[-1]
        tasks = tuple(task for task in plan.task_names if task in subset)
        return plan.trial(method.name, method.choice(0).method, tasks, 0, plan.seeds[0])


def gains(changed: Mapping[str, Array]) -> dict[str, float]:
    """By task the mean of its `changes`."""
    return {task: float(found.mean()) for task, found in changed.items()}


def changes(plan: Plan, together: Sequence[Result], alone: Mapping[str, Sequence[Result]]) -> dict[str, Array]:
    """By task [seeds, 2], the relative change of its main metric on either half of the validation rows; positive =
    better.

    Each network is read on one half at the epoch that is best on the other (`values_of`). Where a half has no value,
    [seeds, 1], of all rows at the chosen epochs. Where the single network leaves nothing to gain, what is lost is in
    the metric's units.

    Args:
        plan: knows the metrics.
        together: the joint network, seed by seed.
        alone: of each of its tasks the single network, on the same seeds.
    """
    ours = [values_of(plan, result, tuple(alone)) for result in together]
    found = {}
    for task in plan.tasks:
        if task.name in alone:
            theirs = [values_of(plan, result, (task.name,))[task.name] for result in alone[task.name]]
            mine = [values[task.name] for values in ours]
            if len({len(values) for values in (*mine, *theirs)}) > 1:
                mine = [[_chosen(result, task.name)] for result in together]
                theirs = [[_chosen(result, task.name)] for result in alone[task.name]]
            found[task.name] = _changes(task, np.array(mine), np.array(theirs))
    return found


def _changes(task: PlannedTask, ours: Array, theirs: Array) -> Array:
    main = task.metrics[0]
    found = relative_changes(ours.ravel(), theirs.ravel(), higher_is_better=main.higher_is_better, ideal=main.ideal)
    if found is None:
        found = (ours - theirs).ravel() * (1.0 if main.higher_is_better else -1.0)
    return found.reshape(ours.shape)


def _chosen(result: Result, task: str) -> float:
    return result.curves.validation[task][result.chosen_epoch - 1]
