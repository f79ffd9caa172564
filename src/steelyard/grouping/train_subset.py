"""Measure subsets of tasks by training a network for each, with what a study trains with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from steelyard.errors import GroupingError
from steelyard.grouping.proposals import Subset
from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.statistics import relative_changes
from steelyard.study.planning.plan import Plan, PlannedTask
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK, Result, Trial

SEED = 10_009
"""Subsets are tried on a seed of their own: what is chosen is judged on others, on which it had no luck yet."""


class Measuring:
    """A `Measure` that trains; what the store holds already is not trained again.

    Args:
        plan: single tasks and one method, on the seed that subsets are tried on.
        store: open for writing.
        train: trains those of these trials that the store does not hold.
    """

    def __init__(self, plan: Plan, store: Store, train: Callable[[Plan, list[Trial], str], None]) -> None:
        self.plan, self.store, self.train = plan, store, train

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
        return {
            subset: gains(plan, [results[trial]], {task: [results[alone[task]]] for task in trial.tasks})
            for subset, trial in together.items()
            if trial in results
        }

    @staticmethod
    def _trial(plan: Plan, subset: Subset) -> Trial:
        method = plan.methods[-1]
        tasks = tuple(task for task in plan.task_names if task in subset)
        return plan.trial(method.name, method.choice(0).method, tasks, 0, plan.seeds[0])


def gains(plan: Plan, together: Sequence[Result], alone: Mapping[str, Sequence[Result]]) -> dict[str, float]:
    """By task, the relative change of its main metric on validation data, at the chosen epochs, positive = better.

    Args:
        plan: knows the metrics.
        together: the joint network, seed by seed.
        alone: of each of its tasks the single network, on the same seeds.
    """
    found = {}
    for task in plan.tasks:
        if task.name in alone:
            found[task.name] = float(np.mean(changes(task, together, alone[task.name])))
    return found


def changes(task: PlannedTask, together: Sequence[Result], alone: Sequence[Result]) -> Sequence[float]:
    """`gains` of one task, seed by seed; where the single network leaves nothing to gain, what is lost in its units."""
    main = task.metrics[0]
    ours, theirs = ([_chosen(result, task.name) for result in results] for results in (together, alone))
    found = relative_changes(ours, theirs, higher_is_better=main.higher_is_better, ideal=main.ideal)
    if found is None:
        found = (np.array(ours) - np.array(theirs)) * (1.0 if main.higher_is_better else -1.0)
    return [float(value) for value in found]


def _chosen(result: Result, task: str) -> float:
    return result.curves.validation[task][result.chosen_epoch - 1]
