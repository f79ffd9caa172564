"""Metrics of all tasks together, from the test outputs that trials keep: single-task networks are several trials."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from torch import Tensor

from steelyard.errors import ProblemError, SteelyardError
from steelyard.problems import load_problem
from steelyard.problems.data import Data
from steelyard.problems.guard import guarded
from steelyard.problems.problem import Problem
from steelyard.problems.sources import data_digests
from steelyard.problems.task import JointMetric
from steelyard.study.analysis.statistics import interval
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.judgement import Judgement, OtherMetric
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.provenance import changed_data
from steelyard.study.training.kept_outputs import unpack
from steelyard.study.training.problem_rehearsal import attempt, joint_targets, joint_value
from steelyard.study.trial import SINGLE_TASK


def with_joint(judgement: Judgement, found: TrialResults) -> Judgement:
    """A judgement with the metrics of all tasks together; a note where their data or their code are not to be had."""
    try:
        return dataclasses.replace(judgement, others=[*judgement.others, *joint_metrics(found)])
    except SteelyardError as error:
        said = f"metrics of all tasks together are left out, which need the problem and its test data: {error}"
        return dataclasses.replace(judgement, notes=[*judgement.notes, said])


@guarded
def joint_metrics(found: TrialResults) -> list[OtherMetric]:
    """One of each joint metric, setting and method of the plan, over the seeds of which every network is finished.

    Raises:
        SteelyardError: the problem or its data cannot be loaded, the test labels are others, or a metric fails.
    """
    plan = found.plan
    if not any(result.outputs for result in found.results.values()):  # which are kept for such metrics alone
        return []
    problem = load_problem(plan.reference)
    if not problem.joint:
        raise ProblemError(f"problem {problem.name!r} has none any more")
    if plan.task_names != problem.task_names:
        raise ProblemError(f"problem {problem.name!r}: its tasks are no longer those of the study, in their order")
    _check_labels(plan, problem)
    problem = problem.redrawn() if plan.resplit else problem
    judged = []
    targets = {seed: joint_targets(problem, _data(problem, seed)) for seed in plan.seeds}
    for setting in range(len(plan.settings)):
        outputs = {method.name: _outputs(found, method.name, setting) for method in plan.methods}
        for metric in problem.joint:
            values = {
                method: {seed: joint_value(problem, metric, kept, targets[seed]) for seed, kept in by_seed.items()}
                for method, by_seed in outputs.items()
            }
            alone = values.get(SINGLE_TASK, {})
            judged += [
                _judged(metric, method, setting, own, {} if method == SINGLE_TASK else alone)
                for method, own in values.items()
                if own
            ]
    return judged


def _judged(
    metric: JointMetric, method: str, setting: int, values: dict[int, float], alone: dict[int, float]
) -> OtherMetric:
    values = {seed: value if math.isfinite(value) else math.nan for seed, value in values.items()}
    numbers = np.array(list(values.values()))
    return OtherMetric(
        method=method,
        setting=setting,
        task=None,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        percent=metric.percent,
        values=values,
        mean=float(numbers.mean()),
        sd=float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan,
        difference=interval([value - alone[seed] for seed, value in values.items() if seed in alone]),
    )


def _outputs(found: TrialResults, method: str, setting: int) -> dict[int, dict[str, Tensor]]:
    """Seed -> task -> test outputs, of every seed that has those of all tasks."""
    outputs: dict[int, dict[str, Tensor]] = {}
    for seed, trial in found.trials(method, setting):
        kept = found.results[trial].outputs if trial in found.results else {}
        served = {task: unpack(kept[task]) for task in found.plan.serves(method, trial.tasks) if task in kept}
        outputs[seed] = outputs.get(seed, {}) | served
    return {seed: by_task for seed, by_task in outputs.items() if len(by_task) == len(found.plan.task_names)}


def _data(problem: Problem, seed: int) -> Data:
    return attempt(problem, "loading the data", lambda: problem.data(seed))


def _check_labels(plan: Plan, problem: Problem) -> None:
    """Outputs are of the rows they were taken on: beside other labels they would give a number that means nothing.

    Of rows that are divided anew for every seed, the plan knows one division.
    """
    for fold, digests in enumerate(plan.origin.data if plan.origin else ()):
        if digests is not None:
            now = data_digests(_data(problem, fold))
            if changed := changed_data(_test_labels(digests), _test_labels(now)):
                raise ProblemError(f"problem {problem.name!r}: no longer as when the study was planned: {changed}")


def _test_labels(digests: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if " of test" in name and not name.startswith("inputs")}
