"""What affinities between tasks would have told of the gains that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from steelyard.grouping.effects import FEWEST, Matrix, effects
from steelyard.grouping.search import Measured

PAIRS, FITTED = "all trained pairs (HOA)", "effects fitted to the other subsets"


@dataclass(frozen=True)
class Affinity:
    """One number for each ordered pair of tasks, and how far such numbers predict what was measured.

    Attributes:
        name: what it is.
        values: ``[T, T]``, row: whose gain, column: who is present; NaN where nothing is known.
        correlation: the mean over tasks of the rank correlation between predicted and measured gains of subsets, those
            left out that it was made from; None where too few are left.
        subsets: over how many of them.
    """

    name: str
    values: Matrix
    correlation: float | None
    subsets: int


def judged(tasks: Sequence[str], measured: Measured, given: Mapping[str, Matrix]) -> tuple[Affinity, ...]:
    """Each of the given affinities, the trained pairs, and fitted effects, held to the measured gains.

    A subset's gain for a task is predicted by the mean affinity of the others in it for that task (Fifty et al. 2021,
    Standley et al. 2020).

    Args:
        tasks: their names, in the order of rows and columns.
        measured: gains over single-task learning.
        given: affinities by name.
    """
    names = tuple(tasks)
    together = {subset: gains for subset, gains in measured.items() if len(subset) > 1}
    found = [_judged(name, names, values, together) for name, values in given.items()]
    larger = {subset: gains for subset, gains in together.items() if len(subset) > 2}
    found.append(_judged(PAIRS, names, _pairs(names, together), larger))
    fitted = effects(names, together)
    found.append(Affinity(FITTED, fitted.values, fitted.correlation, len(together)))
    return tuple(found)


def _pairs(names: tuple[str, ...], measured: Measured) -> Matrix:
    values = np.full((len(names), len(names)), np.nan)
    for subset, gains in measured.items():
        if len(subset) == 2:
            first, second = (names.index(task) for task in subset)
            values[first, second], values[second, first] = gains[names[first]], gains[names[second]]
    return values


def _judged(name: str, names: tuple[str, ...], values: Matrix, measured: Measured) -> Affinity:
    correlations: list[float] = []
    used = set()
    for task, of_task in enumerate(values):
        predicted, gains = [], []
        for subset, found in measured.items():
            others = [other for other, held in enumerate(names) if held in subset and other != task]
            if names[task] in subset and np.isfinite(of_task[others]).all():
                predicted.append(of_task[others].mean())
                gains.append(found[names[task]])
                used.add(subset)
        if len(gains) >= FEWEST and np.ptp(predicted) > 0 and np.ptp(gains) > 0:
            correlations.append(float(spearmanr(predicted, gains).statistic))
    return Affinity(name, values, float(np.mean(correlations)) if correlations else None, len(used))
