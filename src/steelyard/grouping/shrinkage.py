"""Measured gains are noisy, and the largest of many is the luckiest: shrink them before choosing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Gains = NDArray[np.float64]


def shrunk(gains: Gains, noise: Gains) -> Gains:
    """Each task's gains, drawn towards their mean over the subsets that hold it, by how much of their spread is noise.

    ``mean + max(0, 1 − (n − 3) / (n − 1) · σ² / s²) · (gain − mean)`` over the n subsets that hold the task, `s²` their
    variance: positive-part James-Stein, which has the smaller expected squared error for every truth from four subsets
    on. The gains of one task keep their order; against other tasks, and against training alone, whose gain is zero
    without noise, lucky ones fall back.

    Args:
        gains: `[m, T]`, minus infinity where a subset does not hold a task. Single tasks are no rows of it.
        noise: `[T]`, the standard deviation of one measured gain.

    Source: Efron & Morris (1975), "Data Analysis Using Stein's Estimator and its Generalizations".
    """
    result: Gains = gains.copy()
    for task in range(gains.shape[1]):
        held = np.isfinite(gains[:, task])
        count = int(held.sum())
        if count < 4:
            continue
        values = gains[held, task]
        variance = values.var(ddof=1)
        if variance > 0.0:
            kept = max(0.0, 1.0 - (count - 3) / (count - 1) * noise[task] ** 2 / variance)
            result[held, task] = values.mean() + kept * (values - values.mean())
    return result
