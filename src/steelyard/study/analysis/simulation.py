"""How often a study that is made up says something false, and how much of what is true it finds.

A study is its differences from single-task learning by seed, method and task: what the joint networks have by chance,
less what the single-task networks have, which all methods share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from steelyard.study.analysis.multiple_testing import Unit, together
from steelyard.study.analysis.statistics import LEVEL, Array, claim, counted_deviation, holm
from steelyard.study.judgement import Verdict

Kind = Literal["normal", "heavy-tailed", "tied", "unequal", "skewed", "collapsing"]
Pair = tuple[int, int]  # method, task; method 0 is the plain sum
Procedure = Callable[[dict[Pair, float], int, int], dict[Pair, float]]
ALPHA = 1.0 - LEVEL
STEP = 0.5  # of a tied metric, in deviations of a value
EFFECT = 6.0  # in deviations of a value
PAIRING_EFFECT = {3: 3.0, 5: 1.9, 10: 1.2}  # by seeds, in deviations of a value: see `pairing`


@dataclass(frozen=True)
class Rates:
    """Of many studies of one design."""

    false: float  # studies with a false word, where nothing is true
    wrong: float  # studies with a false word, where some effects are true
    sum_found: float  # of the true effects of the plain sum
    methods_found: float  # of the true effects of the strategies


def per_method(p_values: dict[Pair, float], methods: int, tasks: int) -> dict[Pair, float]:
    """A family for every method: Holm over the tasks."""
    found: dict[Pair, float] = {}
    for method in range(methods):
        found |= holm({key: p for key, p in p_values.items() if key[0] == method})
    return found


def over_the_study(p_values: dict[Pair, float], methods: int, tasks: int) -> dict[Pair, float]:
    """One family, all words alike: Holm."""
    return holm(p_values)


def plain_sum_first(p_values: dict[Pair, float], methods: int, tasks: int) -> dict[Pair, float]:
    """One family, in which the plain sum is asked first: what studies do."""
    return together(p_values, [Unit((0, t), tuple((m, t) for m in range(1, methods))) for t in range(tasks)])


def gate(p_values: dict[Pair, float], methods: int, tasks: int) -> dict[Pair, float]:
    """Two families, one after the other: all words of the plain sum must be decided before a strategy is judged."""
    first = holm({key: p for key, p in p_values.items() if key[0] == 0})
    closed = max(first.values(), default=0.0)
    others = holm({key: p for key, p in p_values.items() if key[0] > 0})
    return first | {key: max(p, closed) for key, p in others.items()}


def max_t(seeds: int, methods: int, tasks: int, drawn: int = 2000, seed: int = 1) -> Procedure:
    """One family, all words alike, by the largest statistic: step-down max-T with the true correlation of the words.

    No study knows that correlation (three seeds do not show it): this is what knowing it would bring. Of normal noise;
    adjusted p-values are shares of ``drawn`` studies without effects.

    Source: Westfall & Young, "Resampling-based multiple testing", Wiley (1993), algorithm 2.8 (step-down min-p).
    """
    random = np.random.default_rng([seed, seeds, methods, tasks, drawn])
    shape = (drawn, methods * tasks)
    null = np.array([differences(random, "normal", seeds, methods, tasks).reshape(seeds, -1) for _ in range(drawn)])
    statistic = np.abs(null.mean(1) / null.std(1, ddof=1)).reshape(shape) * np.sqrt(seeds)
    by_chance = 2.0 * special.stdtr(seeds - 1, -statistic)

    def procedure(p_values: dict[Pair, float], methods: int, tasks: int) -> dict[Pair, float]:
        keys = sorted(p_values, key=lambda key: p_values[key])
        places = [method * tasks + task for method, task in keys]
        # The smallest p-value by chance among a test and all that are less significant.
        smallest = np.minimum.accumulate(by_chance[:, places[::-1]], axis=1)[:, ::-1]
        shares = (smallest <= np.array([p_values[key] for key in keys])).mean(0)
        return dict(zip(keys, np.maximum.accumulate(shares).tolist(), strict=True))

    return procedure


PROCEDURES: dict[str, Procedure] = {
    "a family per method": per_method,
    "Holm over the study": over_the_study,
    "all of the plain sum, then the others": gate,
    "the plain sum first, task by task": plain_sum_first,
}


def differences(random: np.random.Generator, kind: Kind, seeds: int, methods: int, tasks: int) -> Array:
    """Of one study without any effect, ``[seeds, methods, tasks]``: means are zero."""
    run = np.sqrt(0.3) * random.normal(size=(seeds, methods, 1)) + np.sqrt(0.7) * random.normal(
        size=(seeds, methods, tasks)
    )
    alone = random.normal(size=(seeds, 1, tasks))
    if kind == "heavy-tailed":  # log-normal errors on both sides: their differences scatter alike up and down
        run, alone = (log_normal(values) for values in (run, alone))
    if kind == "skewed":  # differences themselves are log-normal, with a skewness of 1.75
        return log_normal(run, 0.5)
    if kind == "collapsing":  # one network in ten is far off, in all its tasks
        run = run - 8.0 * (random.random((seeds, methods, 1)) < 0.1) + 0.8
    found: Array = run - alone
    if kind == "unequal":  # every third method scatters three times as much
        found = found * np.where(np.arange(methods) % 3 == 0, 3.0, 1.0)[:, None]
    return np.round(found / STEP) * STEP if kind == "tied" else found


def rates(
    kind: Kind, seeds: int, methods: int, tasks: int, procedures: Sequence[Procedure], studies: int, seed: int = 1
) -> list[Rates]:
    """What each procedure does in the same studies; nothing true is on the edge of being said."""
    random = np.random.default_rng([seed, seeds, methods, tasks])
    effects = true_effects(methods, tasks)
    counts = np.zeros((len(procedures), 4))
    step = STEP if kind == "tied" else 0.0
    for _ in range(studies):
        noise = differences(random, kind, seeds, methods, tasks)
        claims = [_claims(noise + shift, step) for shift in (0.0, effects)]
        for place, procedure in enumerate(procedures):
            none, some = (_said(made, procedure, methods, tasks) for made in claims)
            truth = {key: _truth(effects[key]) for key in some}
            counts[place] += (
                bool(none),
                any(said != truth[key] for key, said in some.items()),
                _share(some, effects, lambda key: key[0] == 0),
                _share(some, effects, lambda key: key[0] > 0),
            )
    return [Rates(*map(float, row / studies)) for row in counts]


def true_effects(methods: int, tasks: int) -> Array:
    """``[methods, tasks]``: the plain sum hurts half of the tasks, some strategies gain there, some elsewhere."""
    half = (tasks + 1) // 2
    found = np.zeros((methods, tasks))
    found[0, :half] = -EFFECT
    found[1:, :half] = EFFECT * (np.arange(methods - 1) % 2)[:, None]
    found[1:, half:] = EFFECT * (np.arange(methods - 1) % 3 == 0)[:, None]
    return found


def log_normal(values: Array, spread: float = 0.7) -> Array:
    """Skewed values of mean 0 and variance 1, of normal ones."""
    mean, variance = np.exp(spread**2 / 2), (np.exp(spread**2) - 1.0) * np.exp(spread**2)
    found: Array = (np.exp(spread * values) - mean) / np.sqrt(variance)
    return found


def _claims(found: Array, step: float) -> dict[Pair, tuple[Verdict, float]]:
    """The nearest claim of each method and task, with the region shrunk to a point: the mean is on both its edges."""
    _, methods, tasks = found.shape
    made = {
        (m, t): claim(found[:, m, t], 0.0, counted_deviation(float(found[:, m, t].mean()), step))
        for m in range(methods)
        for t in range(tasks)
    }
    return {key: (each.verdict, each.p_value) for key, each in made.items() if each is not None}


def _said(
    claims: dict[Pair, tuple[Verdict, float]], procedure: Procedure, methods: int, tasks: int
) -> dict[Pair, Verdict]:
    adjusted = procedure({key: p for key, (_, p) in claims.items()}, methods, tasks)
    return {key: verdict for key, (verdict, _) in claims.items() if adjusted[key] <= ALPHA}


def _truth(effect: float) -> str:
    return "gain" if effect > 0 else "negative transfer" if effect < 0 else "nothing"


def _share(said: dict[Pair, Verdict], effects: Array, of: Callable[[Pair], bool]) -> float:
    """Of the true effects, how many are said; 1 where there are none."""
    true = [(int(m), int(t)) for m, t in zip(*np.nonzero(effects), strict=True) if of((int(m), int(t)))]
    return sum(said.get(key) == _truth(effects[key]) for key in true) / len(true) if true else 1.0


def pairing(
    seeds: int, correlation: float, ratio: float = 1.0, studies: int = 20_000, seed: int = 1
) -> dict[str, tuple[float, float]]:
    """Test -> (how often it is significant without an effect, and with one) of values alone and together by seed.

    Three tests of a difference: paired by seed, as studies make them; of two independent samples (Welch); and the
    latter with the larger of both variances, which does not rely on independence. The effect is one that the paired
    test finds in half to two thirds of uncorrelated studies.

    Args:
        seeds: values of each side.
        correlation: between both sides of a seed.
        ratio: of the deviation together to that alone.
    """
    random = np.random.default_rng([seed, seeds])
    alone, own = random.normal(size=(2, studies, seeds))
    joint = ratio * (correlation * alone + np.sqrt(1.0 - correlation**2) * own)
    effect = PAIRING_EFFECT[seeds] * float(np.sqrt((1.0 + ratio**2) / 2.0))
    variances = alone.var(1, ddof=1), joint.var(1, ddof=1)
    of_difference = (joint - alone).var(1, ddof=1)
    apart = sum(variances)
    freedom = apart**2 / (variances[0] ** 2 + variances[1] ** 2) * (seeds - 1)
    tests = {
        "paired": (of_difference, np.full(studies, seeds - 1.0)),
        "Welch": (apart, freedom),
        "the larger variance": (np.maximum(apart, of_difference), freedom),
    }
    mean, found = (joint - alone).mean(1), {}
    for name, (variance, degrees) in tests.items():
        edge = special.stdtrit(degrees, (1.0 + LEVEL) / 2.0) * np.sqrt(variance / seeds)
        found[name] = float((np.abs(mean) > edge).mean()), float((mean + effect > edge).mean())
    return found


def recommended(
    strategies: int, seeds: int, studies: int = 4_000, seed: int = 1, skewed: bool = False
) -> tuple[float, float]:
    """How often the best of several strategies is recommended where all lie on the edge of what may be recommended: by
    its own interval, and by one that holds for all of them, as studies do it.

    Of normal noise, and the strategies share the single-task networks; or skewed downwards, each by itself.
    """
    random = np.random.default_rng([seed, strategies, seeds])
    found = random.normal(size=(studies, seeds, strategies)) - random.normal(size=(studies, seeds, 1))
    if skewed:
        found = -log_normal(random.normal(size=found.shape), 0.5)
    best = found.mean(1).argmax(1)
    sample = found[np.arange(studies), :, best]
    error = sample.std(1, ddof=1) / np.sqrt(seeds)
    edges = (special.stdtrit(seeds - 1, 1.0 - ALPHA / 2.0 / among) for among in (1, strategies))
    alone, of_all = (float((sample.mean(1) > edge * error).mean()) for edge in edges)
    return alone, of_all


def coverage(skew: float, seeds: int, studies: int = 40_000, seed: int = 1) -> float:
    """How often a 95 % interval over seeds holds the mean of differences: normal ones, or log-normal of this σ."""
    random = np.random.default_rng([seed, seeds])
    sample = random.lognormal(0.0, skew, (studies, seeds)) if skew else random.normal(size=(studies, seeds))
    truth = np.exp(skew**2 / 2) if skew else 0.0
    half = special.stdtrit(seeds - 1, (1.0 + LEVEL) / 2.0) * sample.std(1, ddof=1) / np.sqrt(seeds)
    return float((np.abs(sample.mean(1) - truth) <= half).mean())
