"""What is wrong with the data or the values of a study, and so comes before all other findings."""

from __future__ import annotations

import math

from steelyard.io.lists_and_counts import counted, first_few
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.same_rows import same_rows

NAMED = 4  # so many are named, the others counted


def data_cautions(found: TrialResults) -> list[str]:
    """The gravest first."""
    return [*_other_data(found), *same_rows(found.plan), *_no_value(found)]


def _other_data(found: TrialResults) -> list[str]:
    """Differences between networks that learnt from other rows are differences between these too."""
    other = [result.other_data for result in found.results.values() if result.other_data]
    if not other:
        return []
    return [
        f"The data were not those that the study was planned with in {len(other)} of {len(found.results)} trainings "
        f"({first_few(list(dict.fromkeys(other)), NAMED)}): they were changed since, or load() gives other numbers in "
        "every process, and differences between methods and between seeds may be of the data alone. Give whatever it "
        "draws from a seed, and start the study again."
    ]


def _no_value(found: TrialResults) -> list[str]:
    """Of stores of earlier versions alone: see `TrialResults.metrics`."""
    gaps = []
    for task in found.plan.tasks:
        for place, metric in enumerate(task.metrics):
            values = [
                of[place]
                for method in found.plan.methods
                for setting in range(len(found.plan.settings))
                for of in found.metrics(method.name, setting, task.name).values()
            ]
            if without := sum(map(math.isnan, values)):
                gaps.append(f"{metric.name} of {task.label} in {without} of {counted(len(values), 'value')}")
    if not gaps:
        return []
    return [
        f"No value on test data (NaN or infinite): {first_few(gaps, NAMED)}. Means and differences with such a seed "
        "have none either."
    ]
