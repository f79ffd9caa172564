"""Which choices decide in ``comparison``: of the pair, of the weighting, or of neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from steelyard.io.lists_and_counts import counted, listed
from steelyard.reproductions.evidence import REGION, Comparison, above_zero, gains, of_seeds, points, standing
from steelyard.reproductions.reproduction import Finding, Outcome, Outcomes, Word
from steelyard.study.analysis.number_phrases import relative_of
from steelyard.study.analysis.statistics import LEVEL, Array, holm, interval, not_worse
from steelyard.study.trial import SINGLE_TASK

WEIGHTINGS = ("equal", "dwa", "uw")
BesideAlone = Literal["as good", "worse", "open"]
AS_GOOD = "less than a point of Δm worse than alone, or better"
AMOUNT = ", at the largest amount of labels that all pairs have"


def even_amounts(outcome: Outcome) -> dict[float, int]:
    """Amount of labels -> setting, where all tasks have as many."""
    shares = [set(setting.fractions.values()) for setting in outcome.plan.settings]
    return {share.pop(): place for place, share in enumerate(shares) if len(share) == 1}


def places(outcomes: Outcomes) -> dict[str, int]:
    """Pair -> the setting with the largest amount that all pairs have: more labels must not pass for a better pair."""
    even = {pair: even_amounts(each) for pair, each in outcomes.items()}
    amount = max(set.intersection(*map(set, even.values()))) if even else 1.0
    return {pair: settings[amount] for pair, settings in even.items()}


@dataclass(frozen=True)
class _Choices:
    """How weightings stand beside training alone, pair by pair.

    Attributes:
        words: by (pair, weighting), adjusted over all of them.
        alone: the words that each would get by itself.
        family: so many have finished, and are adjusted for.
    """

    words: dict[tuple[str, str], BesideAlone]
    alone: dict[tuple[str, str], BesideAlone]
    family: int

    @property
    def doubts(self) -> list[str]:
        """``Decided alone, but not once adjusted for 24 combinations: uw on A (worse).``"""
        those = [
            f"{arm} on {pair} ({self.alone[pair, arm]})"
            for pair, arm in self.words
            if self.words[pair, arm] == "open" != self.alone[pair, arm]
        ]
        of = counted(self.family, "combination")
        return [f"Decided alone, but not once adjusted for {of}: {listed(those)}."] if those else []


def _beside(outcomes: Outcomes) -> _Choices:
    """Whether each weighting is less than one point of Δm worse than alone, or more than that.

    One-sided t tests against that point, the nearer side at half the level, Holm-adjusted over all combinations: both
    claims of a choice rest on them.
    """
    sides: dict[tuple[str, str], BesideAlone] = {}
    tested: dict[tuple[str, str], float] = {}
    samples = changes(outcomes)
    for key, sample in samples.items():
        good, worse = (not_worse(sign * np.asarray(sample), sign * REGION) for sign in (1, -1))
        if good is not None and worse is not None:
            sides[key], tested[key] = "as good" if good < worse else "worse", min(1.0, 2 * min(good, worse))
    adjusted = holm(tested)

    def shown(p_values: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], BesideAlone]:
        return {key: sides[key] if p_values.get(key, 1.0) <= 1.0 - LEVEL else "open" for key in samples}

    return _Choices(shown(adjusted), shown(tested), len(tested))


def changes(outcomes: Outcomes) -> dict[tuple[str, str], Array]:
    """(pair, weighting) -> Δm against alone by seed."""
    where = places(outcomes)
    return {
        (pair, arm): each.findings.changes(arm, SINGLE_TASK, where[pair])
        for pair, each in outcomes.items()
        for arm in WEIGHTINGS
    }


def pairs_matter(outcomes: Outcomes) -> Finding:
    """The same weighting is as good as alone on one pair, and worse on another."""
    beside, samples = _beside(outcomes), changes(outcomes)
    by_arm = {arm: {pair: beside.words[pair, arm] for pair in outcomes} for arm in WEIGHTINGS}
    decide = {arm: words for arm, words in by_arm.items() if {"as good", "worse"} <= set(words.values())}
    found = [
        f"{arm}: {AS_GOOD} on {listed([pair for pair, word in words.items() if word == 'as good'])}; more than a point "
        f"worse on {listed([pair for pair, word in words.items() if word == 'worse'])}."
        for arm, words in decide.items()
    ]
    said = [
        f"{pair}: Δm {', '.join(delta_of(pair, arm, samples, outcomes) for arm in WEIGHTINGS)}." for pair in outcomes
    ]
    alike = len(outcomes) > 1 and all(set(words.values()) in ({"as good"}, {"worse"}) for words in by_arm.values())
    word: Word = "held" if decide else "did not hold" if alike else "undecided"
    claim = (
        "The choice of the pair decides: one weighting equals training alone on one pair, or exceeds it, and is worse "
        f"on another{AMOUNT}"
    )
    same_data = _of_one_data_set(outcomes, by_arm) if decide else []
    return Finding(claim, word, (*found, *same_data, *said, *beside.doubts), of_all=True)


def _of_one_data_set(outcomes: Outcomes, by_arm: Mapping[str, Mapping[str, BesideAlone]]) -> list[str]:
    """Whether two pairs of the same rows show it: others differ in data, network and training too."""
    by_problem: dict[str, list[str]] = {}
    for pair, outcome in outcomes.items():
        by_problem.setdefault(outcome.plan.problem, []).append(pair)
    several = [pairs for pairs in by_problem.values() if len(pairs) > 1]
    shown = [
        f"{arm} on {listed(pairs)}"
        for pairs in several
        for arm, words in by_arm.items()
        if {"as good", "worse"} <= {words[pair] for pair in pairs}
    ]
    if shown:
        return [f"Of pairs of one data set: {listed(shown)}."]
    return ["No two pairs of one data set show it: those that do differ in data, network and training too."]


def delta_of(pair: str, arm: str, samples: Mapping[tuple[str, str], Array], outcomes: Outcomes) -> str:
    """``uw +1.2 % (+0.3 to +2.1)``."""
    shown = interval(samples[pair, arm])
    few = of_seeds(samples[pair, arm], len(outcomes[pair].plan.seeds))
    if shown is not None:
        return f"{relative_of({arm: shown})}{few}"
    alone = outcomes[pair].findings.complete(SINGLE_TASK, places(outcomes)[pair])
    return f"{arm} not finished" if alone else f"{arm} without single-task, which has not finished"


def weightings_matter(outcomes: Outcomes) -> Finding:
    """On one pair, one weighting is as good as alone, and another is worse."""
    beside = _beside(outcomes)
    by_pair = {pair: {arm: beside.words[pair, arm] for arm in WEIGHTINGS} for pair in outcomes}
    decide = {pair: words for pair, words in by_pair.items() if {"as good", "worse"} <= set(words.values())}
    said = []
    for pair, words in decide.items():
        fine, worse = ([arm for arm, word in words.items() if word == kind] for kind in ("as good", "worse"))
        said.append(
            f"{pair}: {listed(fine)} {_be(fine)} {AS_GOOD}; {listed(worse)} {_be(worse)} more than a point worse."
        )
    alike = bool(by_pair) and all(set(words.values()) in ({"as good"}, {"worse"}) for words in by_pair.values())
    word: Word = "held" if decide else "did not hold" if alike else "undecided"
    claim = (
        "The choice of the weighting decides: on one pair one weighting equals training alone, or exceeds it, and "
        f"another is worse{AMOUNT}"
    )
    none = "On no pair both are shown." if outcomes else "Nothing to compare yet."
    return Finding(claim, word, (*(said or [none]), *beside.doubts), of_all=True)


def _be(those: Sequence[str]) -> str:
    return "is" if len(those) == 1 else "are"


def weightings_differ(outcomes: Outcomes) -> Finding:
    """Two weightings of one pair differ beyond chance, Holm-adjusted over all pairs of weightings and tasks."""
    samples, where = {}, places(outcomes)
    for pair, each in outcomes.items():
        for one, other in combinations(WEIGHTINGS, 2):
            samples[f"{pair}, {one} against {other}"] = gains(each.findings, one, other, where[pair])
    found = above_zero(samples)
    differ = [name for name in found.words if found.words[name] in ("better", "worse")]
    said = [f"{name}: {points(found.intervals[name])}." for name in differ]
    none = "No two weightings of a pair are shown to differ." if found.words else "Nothing to compare yet."
    same = standing(Comparison("", samples, dict.fromkeys(samples, REGION)))
    flat = bool(samples) and [same.words.get(name) for name in samples] == ["equal"] * len(samples)
    word: Word = "held" if differ else "did not hold" if flat else "undecided"
    return Finding(
        f"Beside the claim: two weightings differ on one pair{AMOUNT}, however they compare to alone",
        word,
        tuple(said or [none]),
        of_all=True,
    )
