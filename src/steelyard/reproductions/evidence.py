"""Comparisons that a claim rests on: paired by seed, with intervals, adjusted for how many are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from steelyard.reproductions.reproduction import Finding, Outcome, Word
from steelyard.study.findings import Findings, better_by
from steelyard.study.judgement import Interval, Verdict
from steelyard.study.phrases import counted, relative_of
from steelyard.study.statistics import Array, interval, relative_changes, verdicts
from steelyard.study.trial import SINGLE_TASK
from steelyard.study.tuning import validation_scores

REGION = 0.01  # Δm: one point is no difference that matters
Standing = Literal["better", "equal", "worse", "open"]
STARTS: dict[Standing, str] = {
    "better": "better than", "worse": "worse than", "equal": "no different from", "open": "undecided against",
}  # fmt: skip
NAMED = 5  # so many arms are named with their intervals, the largest differences first
STANDINGS: dict[Verdict, Standing] = {
    "gain": "better", "no difference": "equal", "negative transfer": "worse", "undecided": "open",
}  # fmt: skip


@dataclass(frozen=True)
class Standings:
    """How one arm stands against others: a word and an interval for each, positive = better than the other."""

    arm: str
    words: dict[str, Standing]
    intervals: dict[str, Interval]
    unit: str = " %"
    missing: tuple[str, ...] = ()  # those with nothing to compare: not finished, or failed

    def those(self, word: Standing) -> list[str]:
        return [name for name, found in self.words.items() if found == word]

    @property
    def text(self) -> str:
        """``ema, against 4 arms: better than 1 (dwa +1.2 % (+0.3 to +2.1)), no different from 3 (…)``."""
        said = []
        for word, start in STARTS.items():
            those = sorted(self.those(word), key=lambda name: -abs(self.intervals[name].mean))
            if those:
                shown = relative_of({name: self.intervals[name] for name in those[:NAMED]}, self.unit)
                more = f", and {len(those) - NAMED} more" if len(those) > NAMED else ""
                said.append(f"{start} {len(those)} ({shown}{more})")
        lost = f"; not finished: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.arm}, against {counted(len(self.words), 'arm')}: {', '.join(said) or 'nothing to compare'}{lost}"


def all_tasks(found: Findings, arm: str, others: Iterable[str], setting: int = 0, region: float = REGION) -> Standings:
    """One arm against others over all tasks, by seed: differences in Δm against single-task, in points.

    (The relative change from one arm to another has no place here: as a mean over tasks it may be positive both ways.)
    """
    samples = {other: gains(found, arm, other, setting) for other in others if other != arm}
    return standings(arm, samples, dict.fromkeys(samples, region), " points")


def one_task(found: Findings, task: str, arm: str, others: Iterable[str], setting: int = 0) -> Standings:
    """One arm against others on one task's main metric, relative to the other's error (its value without an ideal)."""
    planned = next(each for each in found.plan.tasks if each.name == task)
    samples, regions = {}, {}
    for other in others:
        ours, theirs = found.paired(planned, arm, other, setting)
        if other == arm:
            continue
        if not len(ours):
            samples[other], regions[other] = ours, 0.0
            continue
        ideal = planned.metrics[0].ideal
        # Both the differences and the region by one positive number: the verdict is that of the plain differences.
        unit = abs(float((theirs if ideal is None else ideal - theirs).mean())) or 1.0
        samples[other] = better_by(planned, ours, theirs) / unit
        regions[other] = planned.equivalence * abs(float(theirs.mean())) / unit
    return standings(arm, samples, regions)


def standings(arm: str, samples: Mapping[str, Array], regions: Mapping[str, float], unit: str = " %") -> Standings:
    """Verdicts over these samples of improvements, Holm-adjusted over all of them."""
    known = {name: sample for name, sample in samples.items() if len(sample)}
    words = {name: STANDINGS[word] for name, (word, _) in verdicts(known, regions).items()}
    found = {name: interval(sample) for name, sample in known.items()}
    missing = tuple(name for name in samples if name not in known)
    return Standings(arm, words, {name: each for name, each in found.items() if each is not None}, unit, missing)


def gains(found: Findings, better: str, worse: str, setting: int = 0) -> Array:
    """By seed, how much higher the Δm of one arm is than that of another, both against single-task."""
    arms = (better, worse, SINGLE_TASK)
    seeds = set(found.plan.seeds).intersection(*(found.complete(arm, setting) for arm in arms))
    ours, theirs = (found.changes(arm, SINGLE_TASK, setting, among=seeds) for arm in arms[:2])
    return ours - theirs


def best_on_validation(found: Findings, arms: Sequence[str], setting: int = 0) -> str | None:
    """The arm with the smallest mean validation error, of those that finished all seeds; None where none did."""
    plan = found.plan
    deciding = [task for task in plan.tasks if task.name == plan.main] or list(plan.tasks)
    complete = {arm: found.complete(arm, setting) for arm in arms}
    complete = {arm: results for arm, results in complete.items() if len(results) == len(plan.seeds)}
    if not complete:
        return None
    totals = dict.fromkeys(complete, 0.0)
    for seed in plan.seeds:
        for arm, score in zip(
            complete, validation_scores(deciding, [results[seed][0] for results in complete.values()]), strict=True
        ):
            totals[arm] += score
    return min(totals, key=totals.__getitem__)


def comparable(where: str, standing: Standings) -> Finding:
    """ "Comparable or better": held where none is shown better, open or missing, broken where one is shown better."""
    word: Word = "held"
    if standing.those("worse"):
        word = "did not hold"
    elif standing.those("open") or standing.missing or not standing.words:
        word = "undecided"
    return Finding(where, word, (f"{standing.text}.",))


def together(claim: str, parts: Sequence[Finding], needed: int | None = None, among: int = 0) -> Finding:
    """A claim about several places: held where enough parts held, broken where enough cannot hold any more.

    Args:
        claim: in words.
        parts: the places, as far as they were run.
        needed: how many must hold; by default all.
        among: how many places there will be.
    """
    needed = len(parts) if needed is None else needed
    held = sum(part.word == "held" for part in parts)
    lost = sum(part.word == "did not hold" for part in parts)
    word: Word = (
        "held"
        if parts and held >= needed
        else "did not hold"
        if max(len(parts), among) - lost < needed
        else "undecided"
    )
    counts = [f"{sum(part.word == each for part in parts)} {each}" for each in ("held", "did not hold", "undecided")]
    return Finding(claim, word, (f"Of {counted(len(parts), 'part')}: {', '.join(counts)}.",), tuple(parts))


def improvements(samples: Mapping[str, Array]) -> list[Finding]:
    """For every claim whether its paired differences in Δm lie above zero, Holm-adjusted over these claims."""
    found = standings("", samples, dict.fromkeys(samples, 0.0))
    words: dict[Standing, Word] = {"better": "held", "worse": "did not hold", "open": "undecided", "equal": "undecided"}
    return [
        Finding(claim, words[found.words[claim]], (f"Difference in Δm: {points(found.intervals[claim])}.",))
        if claim in found.intervals
        else Finding(claim, "undecided", ("No seed has finished in both arms.",))
        for claim in samples
    ]


def points(found: Interval) -> str:
    """``+1.2 points (+0.3 to +2.1)``, of a difference between fractions."""
    return relative_of({"": found}, " points").strip()


def arms_of(outcome: Outcome) -> list[str]:
    """The joint arms of a study."""
    return [method for method in outcome.judgement.methods if method != "single-task"]


def delta_text(outcome: Outcome, arm: str, setting: int = 0) -> str | None:
    """Δm of an arm as `percent` writes it; None where there is none."""
    for row in outcome.judgement.rows:
        if (row.method, row.setting) == (arm, setting) and row.delta_m is not None:
            return percent(row.delta_m)
    return None


def delta_p(outcome: Outcome, arm: str, setting: int = 0) -> str | None:
    """The same of Δp, the relative change of the values themselves, as papers print it: not of errors."""
    found, changes = outcome.findings, []
    seeds = sorted(set(found.complete(arm, setting)) & set(found.complete(SINGLE_TASK, setting)))
    for task in outcome.plan.tasks:
        ours, theirs = (found.metrics(each, setting, task.name) for each in (arm, SINGLE_TASK))
        per_metric = [
            relative_changes(
                [ours[seed][place] for seed in seeds],
                [theirs[seed][place] for seed in seeds],
                higher_is_better=metric.higher_is_better,
                ideal=None,
            )
            for place, metric in enumerate(task.metrics)
            if seeds
        ]
        known = [each for each in per_metric if each is not None]
        if known:
            changes.append(np.mean(known, axis=0))
    shown = interval(np.mean(changes, axis=0)) if changes else None
    return None if shown is None else percent(shown)


def percent(found: Interval, signed: bool = True) -> str:
    """``+1.15 ±0.16``: in per cent, with the half-width of the interval."""
    mean, half = 100 * found.mean, 50 * (found.high - found.low)
    text = f"{mean:{'+' if signed else ''}.2f}" + (f" ±{half:.2f}" if np.isfinite(half) else "")
    return text.replace("-", "−")
