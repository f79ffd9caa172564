"""How often a made-up leaderboard says something false, and how much of what is true it finds.

A leaderboard is each row's mean change over the plain sum, by problem. Rows share the noise of the sum that all are
compared with, and what a problem is like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import special

from steelyard.reproductions.leaderboard.over_problems import signs, together_over_problems
from steelyard.reproductions.leaderboard.ranks import ranks
from steelyard.study.analysis.simulation import log_normal
from steelyard.study.analysis.statistics import LEVEL, Array, holm

Noise = Literal["normal", "skewed", "heavy", "unequal", "alone"]
EFFECT = 1.5
"""Of the rows with an effect, in deviations of a problem's change."""


def holm_of_t(changes: Array) -> Array:
    """A t test for each row, adjusted by Holm."""
    problems = len(changes)
    statistic = changes.mean(0) / changes.std(0, ddof=1) * np.sqrt(problems)
    return _holm(2.0 * special.stdtr(problems - 1, -np.abs(statistic)))


def holm_of_signed_ranks(changes: Array) -> Array:
    """Wilcoxon's signed-rank test for each row, exact, adjusted by Holm."""
    signed = np.sign(changes) * ranks(-np.abs(changes).T).T
    by_chance = np.abs(signs(len(changes)) @ signed)
    return _holm((by_chance >= by_chance[0] - 1e-9).mean(0))


def together_by_signed_ranks(changes: Array) -> Array:
    """The largest signed-rank statistic by turning signs, step-down."""
    signed = np.sign(changes) * ranks(-np.abs(changes).T).T
    by_chance = np.abs(signs(len(changes)) @ signed)
    order = np.argsort(-by_chance[0], kind="stable")
    largest = np.maximum.accumulate(by_chance[:, order[::-1]], axis=1)[:, ::-1]
    shares = (largest >= by_chance[0, order] - 1e-9).mean(0)
    found = np.empty(len(order))
    found[order] = np.maximum.accumulate(shares)
    return found


PROCEDURES: dict[str, Callable[[Array], Array]] = {
    "t, Holm": holm_of_t,
    "signed ranks, Holm": holm_of_signed_ranks,
    "largest signed rank, signs turned": together_by_signed_ranks,
    "largest t, signs turned": together_over_problems,
}


def noise(random: np.random.Generator, kind: Noise, problems: int, rows: int) -> Array:
    """``[problems, rows]`` without any effect, of mean zero.

    skewed: log-normal; heavy: t with three degrees of freedom; unequal: problems scatter from 0.3 to 3 times as much;
    alone: rows share nothing.
    """
    shared, own = random.normal(size=(problems, 1)), random.normal(size=(problems, rows))
    if kind == "skewed":
        shared, own = (log_normal(part) for part in (shared, own))
    if kind == "heavy":
        shared = random.standard_t(3, size=(problems, 1)) / np.sqrt(3.0)
        own = random.standard_t(3, size=(problems, rows)) / np.sqrt(3.0)
    found: Array = own if kind == "alone" else np.sqrt(0.5) * (shared + own)
    if kind == "unequal":
        found = found * np.geomspace(0.3, 3.0, problems)[:, None] / 1.4
    return found


def error_and_power(
    kind: Noise, problems: int, rows: int, studies: int, seed: int = 1
) -> dict[str, tuple[float, float, float]]:
    """Procedure -> (family-wise error where nothing is true, the same where a tenth of the rows have an effect, the
    share of these effects that is found)."""
    random = np.random.default_rng([seed, problems, rows])
    true = np.arange(rows) < max(1, rows // 10)
    counts = {name: np.zeros(3) for name in PROCEDURES}
    for _ in range(studies):
        made = noise(random, kind, problems, rows)
        for name, procedure in PROCEDURES.items():
            none = procedure(made) <= 1.0 - LEVEL
            some = procedure(made + EFFECT * true) <= 1.0 - LEVEL
            counts[name] += (none.any(), some[~true].any(), some[true].mean())
    return {name: tuple((found / studies).tolist()) for name, found in counts.items()}


def _holm(p_values: Array) -> Array:
    adjusted = holm(dict(enumerate(p_values.tolist())))
    return np.array([adjusted[place] for place in range(len(p_values))])
