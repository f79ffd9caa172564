"""The work of networks over that of all single-task networks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.trial import SINGLE_TASK, Result


def relative_costs(ours: Mapping[int, Sequence[Result]], alone: Mapping[int, Sequence[Result]]) -> list[float]:
    """The work of each seed's networks over that of all single-task networks, which is the median over their seeds.

    Of processor time where all of them counted it: a busy machine makes a clock on the wall run on.
    """
    by_seed = [*ours.values(), *alone.values()]
    counted = all(result.processor_seconds for results in by_seed for result in results)

    def work(results: Sequence[Result]) -> float:
        return sum(result.processor_seconds if counted else result.seconds for result in results)

    if not ours or not alone:
        return []
    reference = statistics.median(map(work, alone.values()))
    return [work(results) / reference for results in ours.values()]


def own_networks(found: TrialResults, tasks: Collection[str], setting: int) -> float:
    """The work of these tasks' single-task networks over that of all; NaN before they have all finished a seed."""
    alone = found.complete(SINGLE_TASK, setting)
    of_tasks = {
        seed: [
            found.results[trial]
            for trial in found.plan.trials_of(SINGLE_TASK, setting, seed)
            if set(trial.tasks) <= set(tasks)
        ]
        for seed in alone
    }
    costs = relative_costs(of_tasks, alone)
    return statistics.median(costs) if costs else math.nan
