"""Who helps whom, as far as the measured subsets tell: an explanation, and none that a choice rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from steelyard.grouping.search import Measured

Matrix = NDArray[np.float64]
PENALTIES = tuple(float(10.0**power) for power in np.arange(-2.0, 2.1, 0.5))
FEWEST = 4  # subsets of a task from which a rank correlation is taken


@dataclass(frozen=True)
class Effects:
    """What the presence of one task adds to the gain of another.

    Attributes:
        tasks: their names.
        values: `[T, T]`, row: whose gain, column: who is present; NaN on the diagonal and where nothing is known.
        errors: `[T, T]`, standard errors.
        correlation: mean over tasks of the rank correlation between gains of left-out subsets and what the others
            predict for them; None where too few subsets were measured.
    """

    tasks: tuple[str, ...]
    values: Matrix
    errors: Matrix
    correlation: float | None


def effects(tasks: Sequence[str], measured: Measured) -> Effects:
    """Ridge regression, task by task, of gains on who is present: ``gain(S, t) ≈ Σ_{j ∈ S, j ≠ t} e_tj``.

    A task alone gains nothing, so there is no constant. One penalty for all tasks, the one of a grid that predicts
    left-out subsets best.

    Args:
        tasks: their names, in the order of rows and columns.
        measured: gains over single-task learning.
    """
    names = tuple(tasks)
    rows, gains = _tables(names, measured)
    penalty = min(PENALTIES, key=lambda each: _left_out_error(rows, gains, each))
    values, errors = np.full((len(names), len(names)), np.nan), np.full((len(names), len(names)), np.nan)
    correlations = []
    for task, (present, gain) in enumerate(zip(rows, gains, strict=True)):
        if len(gain) == 0:
            continue
        inverse, left_out = _fit(present, gain, penalty)
        slopes = inverse @ present.T @ gain
        noise = float(((gain - left_out) ** 2).mean())
        known = present.any(0)
        values[task, known] = slopes[known]
        errors[task, known] = np.sqrt(noise * np.diag(inverse))[known]
        if len(gain) >= FEWEST and np.ptp(left_out) > 0 and np.ptp(gain) > 0:
            correlations.append(float(spearmanr(left_out, gain).statistic))
    return Effects(names, values, errors, float(np.mean(correlations)) if correlations else None)


def _tables(names: tuple[str, ...], measured: Measured) -> tuple[list[Matrix], list[Matrix]]:
    """Of each task who was present beside it, subset by subset, and its gains."""
    rows, gains = [], []
    for task, name in enumerate(names):
        held = [subset for subset in measured if name in subset]
        present = np.array([[other in subset for other in names] for subset in held], dtype=float)
        present = present.reshape(len(held), len(names))
        present[:, task] = 0.0
        rows.append(present)
        gains.append(np.array([measured[subset][name] for subset in held]))
    return rows, gains


def _fit(present: Matrix, gain: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """The inverse of the penalised Gramian, and for each row what a fit to the others predicts."""
    inverse: Matrix = np.linalg.inv(present.T @ present + penalty * np.eye(present.shape[1]))
    hat = present @ inverse @ present.T
    leverage = np.minimum(np.diag(hat), 1.0 - 1e-9)
    left_out: Matrix = gain - (gain - hat @ gain) / (1.0 - leverage)
    return inverse, left_out


def _left_out_error(rows: Sequence[Matrix], gains: Sequence[Matrix], penalty: float) -> float:
    return sum(
        float(((gain - _fit(present, gain, penalty)[1]) ** 2).sum())
        for present, gain in zip(rows, gains, strict=True)
        if len(gain)
    )
