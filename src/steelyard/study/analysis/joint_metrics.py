"""Metrics of all tasks together, from the test outputs that trials keep: single-task networks are several trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from steelyard.problems import load_problem
from steelyard.problems.guard import guarded
from steelyard.problems.problem import Problem
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store
from steelyard.study.training.kept_outputs import unpack


@dataclass(frozen=True)
class JointValue:
    """One joint metric of one method in one setting, by seed; only seeds of which every network is finished."""

    metric: str
    percent: bool
    method: str
    setting: int
    values: dict[int, float]


@guarded
def joint_values(store: Path | str, made: Plan | None = None) -> list[JointValue]:
    """The joint metrics of a plan in a store, in the order of its methods; none where the problem has none.

    Args:
        store: the file.
        made: the plan; by default the latest.

    Raises:
        StoreError: the file is missing, no store, of another version or empty.
        SteelyardError: the problem or its data cannot be loaded.
    """
    with Store(store) as opened:
        plan = Plan.from_dict(opened.latest_plan()) if made is None else made
        results = opened.results(plan.trials, plan.also)
    if plan.program is not None:  # which has no outputs to show
        return []
    problem = load_problem(plan.reference)
    problem = problem.redrawn() if plan.resplit else problem
    if not problem.joint or plan.task_names != problem.task_names:
        return []
    found = []
    for setting in range(len(plan.settings)):
        for method in plan.methods:
            outputs: dict[int, dict[str, Tensor]] = {}
            for seed in plan.seeds:
                finished = [trial for trial in plan.trials_of(method.name, setting, seed) if trial in results]
                kept = {
                    task: unpack(results[trial].outputs[task])
                    for trial in finished
                    for task in plan.serves(method.name, trial.tasks)
                    if task in results[trial].outputs
                }
                if set(kept) == set(problem.task_names):
                    outputs[seed] = kept
            for metric in problem.joint:
                values = {seed: metric.function(kept, _targets(problem, seed)) for seed, kept in outputs.items()}
                found.append(JointValue(metric.name, metric.percent, method.name, setting, values))
    return found


def _targets(problem: Problem, seed: int) -> dict[str, Tensor]:
    test, found = problem.data(seed).test, {}
    for task in problem.tasks:
        labels = test.labels(task, test.labelled(task))
        assert labels is not None  # a problem with joint metrics has its test data in memory
        found[task.name] = labels
    return found
