"""Intervals and verdicts over paired seeds.

Everything takes plain sequences, one number per seed, already paired: the same position is the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special  # its Student distribution; scipy.stats takes half a second to import

from steelyard.study.judgement import Interval, Verdict

LEVEL = 0.95
NEAR_ZERO = 1e-6  # a baseline this small cannot be divided by
MOST_SEEDS = 100  # beyond this, "more seeds" is no advice

Array = NDArray[np.float64]
Key = TypeVar("Key", str, tuple[str, str])


def interval(sample: Sequence[float] | Array, level: float = LEVEL) -> Interval | None:
    """The mean with its Student-t interval. A single value bounds nothing: −∞ to ∞. None without any.

    mean ± t(n − 1, (1 + level) / 2) · s / √n. A percentile bootstrap would cover 75 % at 3 seeds and 83 %
    at 5 where it says 95 %; the t interval is exact for normal differences at any n.
    """
    values = np.asarray(sample, dtype=np.float64)
    if len(values) == 0:
        return None
    return around(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan, len(values), level)


def around(mean: float, deviation: float, count: int, level: float = LEVEL) -> Interval:
    """The same from a mean and a standard deviation; −∞ to ∞ where one value, or no finite deviation, is known."""
    if count < 2 or not math.isfinite(deviation):
        return Interval(mean, -math.inf, math.inf)
    half = _quantile((1 + level) / 2, count - 1) * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def _quantile(probability: float, freedom: int) -> float:
    """Of Student's t distribution."""
    return float(special.stdtrit(freedom, probability))


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


@dataclass(frozen=True)
class Claim:
    """What one task's differences say by themselves, before the adjustment over tasks."""

    verdict: Verdict  # the nearest claim, never "undecided": whether it is made is up to the p-value
    p_value: float


def claim(better_by: Sequence[float] | Array, region: float) -> Claim | None:
    """The claim nearest to being made about a mean improvement, and its p-value.

    Three one-sided t tests against the edges of the region of practical equivalence ±region: *gain* rejects
    "mean ≤ region", *negative transfer* rejects "mean ≥ −region", *no difference* rejects both
    "mean ≤ −region" and "mean ≥ region" (two one-sided tests, TOST). The p-value is twice the smallest of the
    three: the smallest α at which the two-sided (1 − α) t interval lies wholly inside one of the three
    regions. Such a claim is false only where that interval misses the mean: all three together err at most α.

    None for fewer than two seeds, and for two seeds that agree exactly: metrics come in steps of one example,
    and such a tie is an accident far more often than a sign of no spread.
    """
    values = np.asarray(better_by, dtype=np.float64)
    if len(values) < 2:
        return None
    mean, error, freedom = float(values.mean()), _standard_error(values), len(values) - 1
    if error == 0.0 and len(values) == 2:
        return None

    def beyond(distance: float) -> float:
        """The one-sided p-value of a mean this far beyond an edge."""
        if error == 0.0:
            return 0.0 if distance > 0.0 else 1.0
        return float(special.stdtr(freedom, -distance / error))

    p_values: dict[Verdict, float] = {
        "gain": beyond(mean - region),
        "negative transfer": beyond(-region - mean),
        "no difference": max(beyond(mean + region), beyond(region - mean)),
    }
    verdict = min(p_values, key=lambda name: p_values[name])
    return Claim(verdict, min(1.0, 2.0 * p_values[verdict]))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's step-down adjustment: the smallest family-wise level at which each claim would be made.

    p̃_(i) = max over j ≤ i of min(1, (m − j + 1) · p_(j)), in ascending order of p.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def verdicts(
    better_by: Mapping[Key, Sequence[float] | Array], regions: Mapping[Key, float], alpha: float = 1.0 - LEVEL
) -> dict[Key, tuple[Verdict, float | None]]:
    """The verdict of every task of one method in one setting, with its Holm-adjusted p-value.

    The family is the tasks given here. Each contributes the p-value of its nearest claim (see `claim`); a
    claim is made while Holm's adjusted p-value stays ≤ α, otherwise the task is undecided. A task that
    cannot be tested (one seed) is undecided without a p-value and does not count in the family.

    One p-value stands for three possible claims, so Holm's own proof, which is for one claim each, does not
    cover wrong *kinds* of claims made in later steps; for independent t tests that is the known control of
    directional errors by step-down tests (Shaffer 1980; Finner 1999). The simulation in the tests holds the
    family-wise rate of false verdicts to α, with tasks independent and correlated.
    """
    claims = {task: claim(sample, regions[task]) for task, sample in better_by.items()}
    adjusted = holm({task: made.p_value for task, made in claims.items() if made is not None})
    result: dict[Key, tuple[Verdict, float | None]] = {}
    for task, made in claims.items():
        if made is None:
            result[task] = ("undecided", None)
        else:
            result[task] = (made.verdict if adjusted[task] <= alpha else "undecided", adjusted[task])
    return result


def relative_changes(
    method: Sequence[float] | Array,
    baseline: Sequence[float] | Array,
    *,
    higher_is_better: bool,
    ideal: float | None,
) -> Array | None:
    """One relative change per seed, positive = better: their mean is the change, their spread its error.

    With a known ideal, errors e = |ideal − value| are compared, 1 − mean(e) / mean(e₀); without one,
    values. The ratio of means is used, not the mean of ratios, which a single lucky baseline would ruin.
    The numbers are linearised around it (delta method): u_s = (1 − R) − (e_s − R e₀_s) / mean(e₀), R =
    mean(e) / mean(e₀), so that the uncertainty of the baseline is in their spread.

    None where the mean baseline lies within 1e-6 of zero.
    """
    ours, theirs = np.asarray(method, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if ideal is not None:
        ours, theirs, higher_is_better = np.abs(ideal - ours), np.abs(ideal - theirs), False
    reference = float(theirs.mean())
    if abs(reference) <= NEAR_ZERO:
        return None
    ratio = float(ours.mean()) / reference
    change = (ratio - 1.0) + (ours - ratio * theirs) / reference
    return change if higher_is_better == (reference > 0) else -change


def seeds_to_settle(better_by: Sequence[float] | Array, region: float, family: int = 1) -> int | None:
    """About how many seeds would settle an undecided task if mean and spread stay as they are.

    The smallest n whose interval of level 1 − 0.05 / family would lie wholly in one of the three regions.
    None below three seeds (a spread from two is hardly known) and beyond 100.
    """
    values = np.asarray(better_by, dtype=np.float64)
    if len(values) < 3:
        return None
    mean, spread = abs(float(values.mean())), float(values.std(ddof=1))
    room = abs(mean - region)  # the nearest edge, from either side
    for seeds in range(len(values) + 1, MOST_SEEDS + 1):
        half = _quantile(1 - (1 - LEVEL) / (2 * family), seeds - 1) * spread / math.sqrt(seeds)
        if half < room:
            return seeds
    return None
