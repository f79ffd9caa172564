"""Ranks over problems: Friedman's test, and by how much average ranks must differ (Nemenyi).

Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from steelyard.study.analysis.statistics import LEVEL, Array

REACH = 9.0  # of the standard normal distribution: what lies beyond is nothing
POINTS = 4001  # of the integral over it


def ranks(scores: Array) -> Array:
    """``[…, rows]``, 1 is the largest score; those that are equal share the mean of their ranks.

    A score that is none is worse than every number.
    """
    kept = -np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(kept, axis=-1, kind="stable")
    ordered = np.take_along_axis(kept, order, axis=-1)
    count = kept.shape[-1]
    # Of each run of equal scores the first place, and the last: their mean is what all of it shares.
    changes = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*kept.shape[:-1], 1), dtype=bool)
    numbers = np.arange(1.0, count + 1)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, changes], -1), numbers, 0.0), axis=-1)
    last = np.where(np.concatenate([changes, edge], -1), numbers, count + 1.0)[..., ::-1]
    shared = 0.5 * (first + np.minimum.accumulate(last, axis=-1)[..., ::-1])
    found = np.empty(kept.shape)
    np.put_along_axis(found, order, shared, axis=-1)
    return found


@dataclass(frozen=True)
class FriedmanTest:
    """Whether rows differ in rank at all."""

    chi_square: float
    statistic: float  # Iman and Davenport's, of an F distribution
    freedoms: tuple[int, int]
    p_value: float


def friedman(by_problem: Array) -> FriedmanTest:
    """Of ranks ``[problems, rows]``, at least two of each.

    χ² = 12 N / (k (k + 1)) (Σ R_j² − k (k + 1)² / 4); F = (N − 1) χ² / (N (k − 1) − χ²), of (k − 1) and
    (k − 1)(N − 1) degrees of freedom.
    """
    problems, rows = by_problem.shape
    average = by_problem.mean(0)
    chi_square = 12 * problems / (rows * (rows + 1)) * (float(np.square(average).sum()) - rows * (rows + 1) ** 2 / 4)
    rest = problems * (rows - 1) - chi_square
    statistic = (problems - 1) * chi_square / rest if rest > 1e-9 * problems * rows else math.inf
    freedoms = rows - 1, (rows - 1) * (problems - 1)
    p_value = float(special.fdtrc(*freedoms, statistic)) if math.isfinite(statistic) else 0.0
    return FriedmanTest(chi_square, statistic, freedoms, p_value)


def critical_difference(rows: int, problems: int, level: float = LEVEL) -> float:
    """By how much the average ranks of two rows must differ: q √(k (k + 1) / (6 N)).

    With q the quantile of the studentized range over √2.
    """
    return studentized_range(rows, level) / math.sqrt(2.0) * math.sqrt(rows * (rows + 1) / (6 * problems))


def studentized_range(count: int, level: float) -> float:
    """The quantile of the range of so many standard normal numbers.

    Its distribution is k ∫ φ(z) (Φ(z) − Φ(z − q))^(k−1) dz.
    """
    z = np.linspace(-REACH, REACH, POINTS)
    weight = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])

    def distribution(q: float) -> float:
        return float(count * (weight * (special.ndtr(z) - special.ndtr(z - q)) ** (count - 1)).sum())

    low, high = 0.0, 2 * REACH
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < level else (low, middle)
    return high
