"""What the intervals of a study are about: other seeds, or other rows too."""

from __future__ import annotations

import math

import numpy as np

from steelyard.study.analysis.number_phrases import lowered, method_name, plus_minus_of
from steelyard.study.analysis.statistics import Array, rows_half_width, step_of
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK

NAMED = 3
LEVEL_Z = 1.96  # of a 95 % interval


def about_rows(found: TrialResults) -> str:
    """What these intervals are about, and what other rows would do."""
    plan = found.plan
    if plan.folds > 1:
        return (
            f"Intervals are about other seeds and other rows alike: each seed tests on one of {plan.folds} folds, and "
            "neighbouring folds share most of their training rows."
        )
    if plan.resplit:
        return (
            "Intervals are about other seeds and other rows alike: each seed has its own division of the rows into "
            "training, validation and test, and divisions share most of their rows."
        )
    if plan.program is not None:
        return (
            "Intervals are about other seeds; about other rows only if the program divides its rows by the seed, which "
            "it does for --resplit by trial.division."
        )
    about = (
        "Intervals are about other seeds on this division of the rows into training, validation and test, not about "
        "other rows"
    )
    if text := _other_rows_text(found):
        return f"{about}; {text}."
    shown = [(task, half) for task in plan.tasks if (half := sampling_half(found, task)) is not None]
    if not shown:
        return f"{about}."
    widest = sorted(shown, key=lambda each: -each[1])[:NAMED]
    said = ", ".join(f"{task.label} ±{100 * half:.2g} points ({task.test_rows} rows)" for task, half in widest)
    rest = "" if len(shown) <= NAMED else " at most"
    return f"{about}; as many other test rows would move a value by{rest} {said}."


def other_rows(found: TrialResults, task: PlannedTask, method: str, baseline: str, setting: int) -> float | None:
    """By how much as many other test rows would move a mean difference, half of 95 %; None where nobody counted.

    Where every seed has its own rows, the interval over seeds holds that already.
    """
    if found.plan.folds > 1 or found.plan.resplit:
        return None
    ours, theirs = (found.left_out(each, setting, task.name) for each in (method, baseline))
    seeds = [seed for seed in found.plan.seeds if seed in ours and seed in theirs]
    if not seeds or len({len(side[seed]) for side in (ours, theirs) for seed in seeds}) > 1:
        return None
    return rows_half_width(np.array([np.subtract(ours[seed], theirs[seed]) for seed in seeds]))


def _other_rows_text(found: TrialResults) -> str:
    """What other test rows would do to the differences of the plain sum, or of the first strategy."""
    joint = [method.name for method in found.plan.methods if method.name != SINGLE_TASK]
    if not joint or not found.has(SINGLE_TASK):
        return ""
    method, last = PLAIN_SUM if PLAIN_SUM in joint else joint[0], found.plan.most_labels
    halves = [(task, other_rows(found, task, method, SINGLE_TASK, last)) for task in found.plan.tasks]
    shown = [(task, half) for task, half in halves if half is not None]
    if not shown:
        return ""
    first = [f"{task.label} {plus_minus_of(task, half)} ({task.test_rows} rows)" for task, half in shown[:NAMED]]
    more = f", and so on for {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    name = lowered(method_name(method))
    return f"as many other test rows would move the differences of {name} by {', '.join(first)}{more}"


def about_test(found: TrialResults) -> str:
    """Which test was made of the differences, and how far it is the right one here; empty where nothing is compared."""
    joint = [method.name for method in found.plan.methods if method.name != SINGLE_TASK]
    if not found.has(SINGLE_TASK) or not joint or len(found.plan.seeds) < 2:
        return ""
    shared = (
        "the networks of a seed share start, batches and rows"
        if found.plan.program is None
        else "what the runs of a seed share is the program's to say"
    )
    said = f"Differences are paired by seed (Student's t): {shared}"
    beside = PLAIN_SUM if PLAIN_SUM in joint else joint[0]
    shown = [
        value
        for setting in range(len(found.plan.settings))
        for task in found.plan.tasks
        if (value := _correlation(*found.paired(task, beside, SINGLE_TASK, setting))) is not None
    ]
    if not shown:
        return f"{said}."
    mean = f"{sum(shown) / len(shown):+.2f}".replace("-", "−")
    over = ", the mean over tasks" if len(shown) > 1 else ""
    return f"{said}; between single-task learning and {lowered(method_name(beside))} values correlate by {mean}{over}."


def _correlation(ours: Array, theirs: Array) -> float | None:
    """Over seeds; None of fewer than three, or where one side does not vary."""
    if len(ours) < 3 or min(float(np.ptp(ours)), float(np.ptp(theirs))) == 0.0:
        return None
    # To the size of one: squares of what a program reports may be larger than any number.
    found = float(np.corrcoef(*(values / np.abs(values).max() for values in (ours, theirs)))[0, 1])
    return found if math.isfinite(found) else None


def sampling_half(found: TrialResults, task: PlannedTask) -> float | None:
    """The half-width of the 95 % interval that a value has from its test rows alone: 1.96 √(p (1 − p) / n).

    None for metrics that do not count rows. Of single-task learning with all labels, or of the first method.
    """
    main, last = task.metrics[0], found.plan.most_labels
    method = SINGLE_TASK if found.has(SINGLE_TASK) else found.plan.methods[0].name
    values = [metrics[0] for metrics in found.metrics(method, last, task.name).values()]
    if not main.percent or not values or step_of(values, task.test_rows) == 0.0:
        return None
    p = sum(values) / len(values)
    return LEVEL_Z * math.sqrt(max(0.0, p * (1.0 - p)) / task.test_rows)
