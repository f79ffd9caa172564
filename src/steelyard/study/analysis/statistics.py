"""Intervals and verdicts over paired seeds.

Everything takes plain sequences, one number per seed, already paired: the same position is the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special  # its Student distribution; scipy.stats takes half a second to import

from steelyard.study.judgement import Interval, Verdict

LEVEL = 0.95
NEAR_ZERO = 1e-6  # a baseline this small cannot be divided by
ROUNDING = 1e-12  # of the largest difference: how far equal ones may lie apart
COUNTED = 1e-3  # of a row: how far from a whole number a count may lie that was kept in single precision
POWER = 0.8  # with which so many seeds settle what is open
POWER_Z = float(special.ndtri(0.9))  # of an 80 % interval
MOST_SEEDS = 100  # beyond this, "more seeds" is no advice

Array = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)


def interval(sample: Sequence[float] | Array, level: float = LEVEL, least: float = 0.0) -> Interval | None:
    """The mean with its Student-t interval. A single value bounds nothing: −∞ to ∞. None without any.

    mean ± t(n − 1, (1 + level) / 2) · s / √n. A percentile bootstrap would cover 75 % at 3 seeds and 83 %
    at 5 where it says 95 %; the t interval is exact for normal differences at any n. Differences of a
    metric that counts rows vary as counts do, at least (`counted_deviation`).
    """
    values = np.asarray(sample, dtype=np.float64)
    if len(values) == 0:
        return None
    mean = float(values.mean())
    spread = max(float(values.std(ddof=1)), least) if len(values) > 1 else math.nan
    return around(mean, spread, len(values), level)


def around(mean: float, deviation: float, count: int, level: float = LEVEL) -> Interval:
    """The same from a mean and a standard deviation; −∞ to ∞ where one value, or no finite deviation, is known."""
    if count < 2 or not math.isfinite(deviation):
        return Interval(mean, -math.inf, math.inf)
    half = _quantile((1 + level) / 2, count - 1) * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def _quantile(probability: float, freedom: int) -> float:
    """Of Student's t distribution."""
    return float(special.stdtrit(freedom, probability))


@dataclass(frozen=True)
class Claim:
    """What one task's differences say by themselves, before the adjustment over tasks."""

    verdict: Verdict  # the nearest claim, never "undecided": whether it is made is up to the p-value
    p_value: float


def claim(
    better_by: Sequence[float] | Array, region: float, least: float = 0.0, beyond: float | None = None
) -> Claim | None:
    """The claim nearest to being made about a mean improvement, and its p-value.

    Three one-sided t tests against the edges of the region of practical equivalence ±region: *gain* rejects
    "mean ≤ region", *negative transfer* rejects "mean ≥ −region", *no difference* rejects both
    "mean ≤ −region" and "mean ≥ region" (two one-sided tests, TOST). The p-value is twice the smallest of the
    three: the smallest α at which the two-sided (1 − α) t interval lies wholly inside one of the three
    regions. Such a claim is false only where that interval misses the mean: all three together err at most α.

    A metric that counts rows (an accuracy) varies at least as counts do; see `counted_deviation`. Three seeds that
    agree by chance are no proof.

    None for fewer than two seeds or a value that is none, and for seeds that agree exactly in a difference that nothing
    is known of otherwise: such a tie is an accident far more often than a sign of no spread. No difference at all, in
    three seeds or more, is the same network.

    Args:
        better_by: differences by seed, positive = better.
        region: half-width of the region of practical equivalence.
        least: what the differences are taken to deviate by at least; 0 where nothing is known.
        beyond: what a gain and a negative transfer must exceed, where it is not the region: any amount, with 0.
    """
    edge = region if beyond is None else beyond
    values = np.asarray(better_by, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    mean, freedom = float(values.mean()), len(values) - 1
    spread = deviation(values)
    if spread == 0.0 and least == 0.0 and (len(values) == 2 or mean != 0.0):
        return None
    error = max(spread, least) / math.sqrt(len(values))

    def p_value(distance: float) -> float:
        """The one-sided p-value of a mean this far beyond an edge."""
        if error == 0.0:
            return 0.0 if distance > 0.0 else 1.0
        return float(special.stdtr(freedom, -distance / error))

    p_values: dict[Verdict, float] = {
        "gain": p_value(mean - edge),
        "negative transfer": p_value(-edge - mean),
        "no difference": max(p_value(mean + region), p_value(region - mean)),
    }
    verdict = min(p_values, key=lambda name: p_values[name])
    return Claim(verdict, min(1.0, 2.0 * p_values[verdict]))


def rounded_deviation(step: float) -> float:
    """Of the difference between two values that are rounded to a step: step / √6."""
    return step / math.sqrt(6.0)


def deviation(values: Array) -> float:
    """The standard deviation; 0 where values are equal but for how floats were added up."""
    found = float(values.std(ddof=1))
    return 0.0 if found <= ROUNDING * float(np.abs(values).max()) else found


def not_worse(better_by: Sequence[float] | Array, region: float, least: float = 0.0) -> float | None:
    """The p-value of non-inferiority: a one-sided t test that rejects "the mean is −region or less".

    None for fewer than two seeds, and for an exact tie of which nothing else is known. Of several such parts that must
    all hold, each is tested at the full level: they hold together where the largest p-value is at most α (an
    intersection-union test).

    Source: Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24 (1982).
    """
    values = np.asarray(better_by, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    error = max(deviation(values), least) / math.sqrt(len(values))
    if error == 0.0:
        return None
    return float(special.stdtr(len(values) - 1, -(float(values.mean()) + region) / error))


def counted_deviation(mean: float, step: float) -> float:
    """What differences vary by at least, in a metric that counts rows: √(step · |mean| + step² / 6).

    A mean difference of d rows needs at least d rows on which the two networks disagree, and a count of d varies by √d
    (the least of McNemar's variance); rounding two values to whole rows adds a variance of step² / 6.
    """
    return math.hypot(math.sqrt(step * abs(mean)), rounded_deviation(step))


def rows_half_width(better_by: Array, level: float = LEVEL) -> float | None:
    """Half of the interval that a mean difference has from its test rows alone, whatever the seeds.

    The grouped jackknife: with d_j the mean over seeds of the difference without the j-th of g parts of the rows, the
    variance is (g − 1)/g Σ (d_j − d̄)². Both networks are tested on the same rows, so that what these make easy or hard
    for both drops out.

    Args:
        better_by: [seeds, g], without each part.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 11.
    """
    if better_by.ndim != 2 or min(better_by.shape) == 0 or better_by.shape[1] < 2:
        return None
    parts = better_by.shape[1]
    mean = better_by.mean(0)
    error = math.sqrt((parts - 1) / parts * float(np.square(mean - mean.mean()).sum()))
    return _quantile((1 + level) / 2, parts - 1) * error


def counted_floor(better_by: Array, values: Iterable[float], rows: int, counts: bool = False) -> float:
    """The same of differences by seed between these values of a metric on so many rows; 0 where it counts none.

    With ``counts`` it is known to count some, though the rows of another division or fold be a few more or less.
    """
    step = step_of(values, rows)
    return counted_deviation(float(better_by.mean()), 1.0 / rows if counts and rows > 0 else step)


def step_of(values: Iterable[float], rows: int) -> float:
    """1 / rows where all values of a metric are whole numbers of rows (an accuracy), else 0: no step is known."""
    counts = [value * rows for value in values]
    whole = rows > 0 and all(abs(count - round(count)) <= COUNTED for count in counts if math.isfinite(count))
    return 1.0 / rows if whole else 0.0


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
    better_by: Mapping[Key, Sequence[float] | Array],
    regions: Mapping[Key, float],
    alpha: float = 1.0 - LEVEL,
    least: Mapping[Key, float] | None = None,
) -> dict[Key, tuple[Verdict, float | None]]:
    """The verdict on each of these comparisons, with its Holm-adjusted p-value.

    ``least``: what a comparison's differences are taken to deviate by at least, where that is more than nothing.

    The family is what is given here (a study's own words are judged by `family.together`). Each contributes the p-value
    of its nearest claim (see `claim`); a claim is made while Holm's adjusted p-value stays ≤ α, otherwise the task is
    undecided. A task that cannot be tested (one seed) is undecided without a p-value and does not count in the family.

    One p-value stands for three possible claims, so Holm's own proof, which is for one claim each, does not
    cover wrong *kinds* of claims made in later steps; for independent t tests that is the known control of
    directional errors by step-down tests (Shaffer 1980; Finner 1999). The simulation in the tests holds the
    family-wise rate of false verdicts to α, with tasks independent and correlated.
    """
    floors = least or {}
    claims = {task: claim(sample, regions[task], floors.get(task, 0.0)) for task, sample in better_by.items()}
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
    mean(e) / mean(e₀), so that the uncertainty of the baseline is in their spread. A ratio to a noisy mean is
    too large on average, by about (R var(e₀) − cov(e, e₀)) / (n mean(e₀)²): so much is taken off it.

    Source: Tin, "Comparison of some ratio estimators", J. Amer. Statist. Assoc. 60 (1965).

    None where the mean baseline lies within 1e-6 of zero.
    """
    ours, theirs = np.asarray(method, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if ideal is not None:
        ours, theirs, higher_is_better = np.abs(ideal - ours), np.abs(ideal - theirs), False
    reference = float(theirs.mean())
    if abs(reference) <= NEAR_ZERO:
        return None
    ratio = float(ours.mean()) / reference
    change = (ratio - _bias(ours, theirs) - 1.0) + (ours - ratio * theirs) / reference
    return change if higher_is_better == (reference > 0) else -change


def _bias(above: Array, below: Array) -> float:
    """By how much the ratio of these means is too large on average, to the first order."""
    if len(below) < 2:
        return 0.0
    (_, shared), (_, own) = np.cov(above, below, ddof=1)
    ratio = above.mean() / below.mean()
    return float((ratio * own - shared) / (len(below) * below.mean() ** 2))


def seeds_to_settle(
    better_by: Sequence[float] | Array,
    region: float,
    least: float = 0.0,
    alpha: float = 1.0 - LEVEL,
    most: int = MOST_SEEDS,
) -> tuple[int, int] | None:
    """From how many to how many seeds an undecided comparison is likely to need.

    With so many seeds its interval of level 1 − alpha lies beyond the nearest edge of the region with a probability of
    80 %, if the effect (distance from that edge over spread) is as it seems. It is known from few seeds: the two
    numbers belong to the ends of its own 80 % interval, e ± 1.28 √(1/n + e²/(2(n − 1))).

    None where that tells nothing: fewer than three seeds, an effect that may be zero, or more than `most` seeds.
    """
    values = np.asarray(better_by, dtype=np.float64)
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    spread = max(float(values.std(ddof=1)), least)
    if spread == 0.0:
        return None
    effect = abs(abs(float(values.mean())) - region) / spread
    doubt = POWER_Z * math.sqrt(1.0 / len(values) + effect**2 / (2.0 * (len(values) - 1)))
    high = _seeds_for(effect - doubt, alpha, len(values) + 1, most)
    low = _seeds_for(effect + doubt, alpha, len(values) + 1, most)
    return None if low is None or high is None else (low, high)


def _seeds_for(effect: float, alpha: float, least: int, most: int) -> int | None:
    """The fewest seeds, of at least `least`, that show an effect of so many deviations with a probability of 80 %."""
    if effect <= 0.0:
        return None
    for seeds in range(least, most + 1):
        edge = _quantile(1.0 - alpha / 2.0, seeds - 1)
        if special.nctdtr(seeds - 1, effect * math.sqrt(seeds), edge) <= 1.0 - POWER:
            return seeds
    return None
