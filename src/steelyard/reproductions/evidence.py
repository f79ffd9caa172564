"""Comparisons that a claim rests on: paired by seed, with intervals, adjusted for how many are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from steelyard.io.lists_and_counts import counted, first_few
from steelyard.report.numbers import plus_minus
from steelyard.reproductions.reproduction import Finding, Outcome, Word
from steelyard.study.analysis.number_phrases import relative_of
from steelyard.study.analysis.statistics import (
    LEVEL,
    Array,
    interval,
    not_worse,
    relative_changes,
    rounded_deviation,
    verdicts,
)
from steelyard.study.analysis.trial_results import TrialResults, better_by
from steelyard.study.judgement import Interval, Verdict
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.planning.tuning import validation_scores
from steelyard.study.trial import SINGLE_TASK

Value = TypeVar("Value")
PlaceKey = TypeVar("PlaceKey")
REGION = 0.01  # one point of Δm, or 1 % of one task's error, is no difference that matters
Standing = Literal["better", "equal", "worse", "open"]
STARTS: dict[Standing, str] = {
    "better": "better than", "worse": "worse than", "equal": "no different from", "open": "undecided against",
}  # fmt: skip
NAMED = 5  # so many arms are named with their intervals, the largest differences first
STANDINGS: dict[Verdict, Standing] = {
    "gain": "better", "no difference": "equal", "negative transfer": "worse", "undecided": "open",
}  # fmt: skip


WORDS: dict[Standing, Word] = {
    "better": "held", "worse": "did not hold", "open": "undecided", "equal": "undecided",
}  # fmt: skip
BY_ITSELF = "Tested by itself at 5 %, because all parts must hold."


@dataclass(frozen=True)
class Comparison:
    """One arm beside others: by seed, how much better it is than each; empty for one that has not finished.

    Args:
        arm: the one.
        samples: of each other arm.
        regions: differences up to these matter to nobody.
        unit: of all three, times 100.
        least: what differences are taken to deviate by at least.
        seeds: so many were planned; 0 where nobody is to be told that some are missing.
    """

    arm: str
    samples: Mapping[str, Array]
    regions: Mapping[str, float]
    unit: str = " %"
    least: float = 0.0
    seeds: int = 0


@dataclass(frozen=True)
class Standings:
    """How one arm stands against others: a word and an interval for each, positive = better than the other.

    Args:
        of: what was compared.
        words: Holm-adjusted.
        alone: the words that each comparison would get by itself.
        intervals: not adjusted.
        family: so many comparisons were adjusted for.
    """

    of: Comparison
    words: dict[str, Standing]
    alone: dict[str, Standing]
    intervals: dict[str, Interval]
    family: int

    @property
    def missing(self) -> list[str]:
        """Those with nothing to compare: not finished, or failed."""
        return [name for name in self.of.samples if name not in self.words]

    def those(self, word: Standing) -> list[str]:
        return [name for name, found in self.words.items() if found == word]

    @property
    def text(self) -> str:
        """``ema, against 4 arms (up to 1 point is no difference): better than 1 (dwa +1.2 (+0.3 to +2.1)), …``."""
        said = []
        for word, start in STARTS.items():
            those = [name for name in self.those(word) if word != "open" or self.alone[name] == "open"]
            said += self._named(start, those)
        for word, start in STARTS.items():
            those = [name for name in self.those("open") if word != "open" and self.alone[name] == word]
            said += self._named(f"undecided once adjusted for {self.family} comparisons, though alone {start}", those)
        largest = f"{100 * max(self.of.regions.values(), default=0.0):.2g}"
        unit = self.of.unit.removesuffix("s") if largest == "1" else self.of.unit
        region = f" (up to {largest}{unit} is no difference)" if largest != "0" else ""
        lost = f"; not finished: {', '.join(self.missing)}" if self.missing else ""
        arms = counted(len(self.words), "arm")
        ends = f"{lost}{self._few_seeds}"
        return f"{self.of.arm}, against {arms}{region}: {', '.join(said) or 'nothing to compare'}{ends}"

    @property
    def _few_seeds(self) -> str:
        """``; over 3 of 11 seeds: uw, dwa``, of those that have fewer than were planned."""
        by_count: dict[int, list[str]] = {}
        for name in self.words:
            by_count.setdefault(len(self.of.samples[name]), []).append(name)
        return "".join(
            f"; over {count} of {self.of.seeds} seeds: {first_few(names, NAMED)}"
            for count, names in sorted(by_count.items())
            if count < self.of.seeds
        )

    def _named(self, start: str, those: Sequence[str]) -> list[str]:
        if not those:
            return []
        largest = sorted(those, key=lambda name: -abs(self.intervals[name].mean))[:NAMED]
        shown = relative_of({name: self.intervals[name] for name in largest}, self.of.unit)
        more = f", and {len(those) - NAMED} more" if len(those) > NAMED else ""
        return [f"{start} {len(those)} ({shown}{more})"]

    def doubt(self, name: str) -> str:
        """Why one comparison is undecided though its interval is clear; empty where it is not so."""
        if self.words[name] != "open" or self.alone[name] == "open":
            return ""
        return f" Decided alone, but not once adjusted for {self.family} comparisons."


def all_tasks(
    found: TrialResults, arm: str, others: Iterable[str], setting: int = 0, region: float = REGION
) -> Comparison:
    """One arm beside others over all tasks, by seed: differences in Δm against single-task, in points.

    (The relative change from one arm to another has no place here: as a mean over tasks it may be positive both ways.)
    """
    samples = {other: gains(found, arm, other, setting) for other in others if other != arm}
    return Comparison(arm, samples, dict.fromkeys(samples, region), " points", seeds=len(found.plan.seeds))


def one_task(found: TrialResults, task: str, arm: str, others: Iterable[str], setting: int = 0) -> Comparison:
    """One arm beside others on one task's main metric, relative to the other's error (its value without an ideal).

    So is the region, which is 1 % of the value in the table of a study: of an AUC of 0.94 that is a sixth of the error,
    within which any gain that one may hope for would be called none.
    """
    planned = next(each for each in found.plan.tasks if each.name == task)
    samples = {}
    for other in others:
        ours, theirs = found.paired(planned, arm, other, setting)
        if other == arm:
            continue
        samples[other] = relative_gain(planned, ours, theirs)
    return Comparison(arm, samples, dict.fromkeys(samples, REGION), seeds=len(found.plan.seeds))


def relative_gain(task: PlannedTask, ours: Array, theirs: Array) -> Array:
    """How much better ours are in the main metric, relative to the others' mean error (its value without an ideal)."""
    ideal = task.metrics[0].ideal
    unit = abs(float((theirs if ideal is None else ideal - theirs).mean())) if len(ours) else 1.0
    return better_by(task, ours, theirs) / (unit or 1.0)


def standings(asked: Mapping[PlaceKey, Comparison]) -> dict[PlaceKey, Standings]:
    """Verdicts on all these comparisons, Holm-adjusted over every one of them: they are what one claim rests on."""
    known = {
        (place, other): sample for place, each in asked.items() for other, sample in each.samples.items() if len(sample)
    }
    regions = {(place, other): asked[place].regions[other] for place, other in known}
    least = {(place, other): asked[place].least for place, other in known}
    words = {key: STANDINGS[word] for key, (word, _) in verdicts(known, regions, least=least).items()}
    alone = {key: STANDINGS[verdicts({key: known[key]}, regions, least=least)[key][0]] for key in known}
    intervals = {
        key: found for key, sample in known.items() if (found := interval(sample, least=least[key])) is not None
    }

    def of(place: PlaceKey, values: Mapping[tuple[PlaceKey, str], Value]) -> dict[str, Value]:
        return {other: value for (where, other), value in values.items() if where == place}

    return {
        place: Standings(each, of(place, words), of(place, alone), of(place, intervals), len(known))
        for place, each in asked.items()
    }


def standing(asked: Comparison) -> Standings:
    """The verdicts on one comparison that stands for itself."""
    return standings({"": asked})[""]


def gains(found: TrialResults, better: str, worse: str, setting: int = 0) -> Array:
    """By seed, how much higher the Δm of one arm is than that of another, both against single-task."""
    arms = (better, worse, SINGLE_TASK)
    seeds = set(found.plan.seeds).intersection(*(found.complete(arm, setting) for arm in arms))
    ours, theirs = (found.changes(arm, SINGLE_TASK, setting, among=seeds) for arm in arms[:2])
    return ours - theirs


def beside_alone(found: TrialResults, arm: str, setting: int = 0) -> dict[int, Array]:
    """Seed -> by how much each task is better than alone, ``[T]``, for the seeds that have all tasks of both."""
    seeds = sorted(set(found.complete(arm, setting)) & set(found.complete(SINGLE_TASK, setting)))
    differences = []
    for task in found.plan.tasks:
        ours, theirs = (found.metrics(each, setting, task.name) for each in (arm, SINGLE_TASK))
        values = (np.array([each[seed][0] for seed in seeds]) for each in (ours, theirs))
        differences.append(better_by(task, *values))
    return dict(zip(seeds, np.stack(differences, axis=1), strict=True)) if seeds else {}


def best_on_validation(found: TrialResults, arms: Sequence[str], setting: int = 0) -> str | None:
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


def comparable(where: str, found: Standings) -> Finding:
    """ "Comparable or better": broken where another is shown better, held where each is shown not to be.

    A one-sided test of non-inferiority for each of the others, within the region that does not matter and at the full
    level: that all hold is an intersection-union test (see `statistics.not_worse`).
    """
    asked = found.of
    p_values = {other: not_worse(sample, asked.regions[other], asked.least) for other, sample in asked.samples.items()}
    held = [other for other, p in p_values.items() if p is not None and p <= 1.0 - LEVEL]
    word: Word = "undecided"
    if found.those("worse"):
        word = "did not hold"
    elif p_values and len(held) == len(p_values):
        word = "held"
    said = [f"{found.text}.", f"Not worse by what matters than {len(held)} of {len(p_values)}, each at 5 %, one-sided."]
    known = {other: p for other, p in p_values.items() if p is not None and other in found.intervals}
    if len(known) > NAMED:  # the text above names those that are furthest away
        nearest = sorted(known, key=lambda other: found.intervals[other].low)[:NAMED]
        text = ", ".join(relative_of({other: found.intervals[other]}, asked.unit) for other in nearest)
        said.append(f"Nearest, by the lower end: {text}.")
    return Finding(where, word, tuple(said))


def better_than_each(found: Standings) -> Word:
    """ "Better than each of these": held where every one of them is beaten, each by itself at the full level.

    An intersection-union test: the claim is false where one part is, and that one is held wrongly at 5 % (Berger 1982).
    It is broken where one of them is shown to be better, which is adjusted for all that might.
    """
    if found.those("worse"):
        return "did not hold"
    beaten = sum(word == "better" for word in found.alone.values())
    return "held" if found.of.samples and beaten == len(found.of.samples) else "undecided"


def each_beaten(claim: str, found: Standings, start: str = "", said: Sequence[str] = ()) -> Finding:
    """`better_than_each` as a finding: what was compared, and further lines of evidence."""
    word = better_than_each(found)
    return Finding(claim, word, (f"{start}{found.text}.{by_itself(found, word)}", *said))


def by_itself(found: Standings, word: Word) -> str:
    """Why a part is held though its comparisons are undecided once adjusted; empty where they are not."""
    return f" {BY_ITSELF}" if word == "held" and found.those("open") else ""


def together(claim: str, parts: Sequence[Finding], said: Sequence[str] = ()) -> Finding:
    """A claim about several places: held where each is, broken where one is.

    Args:
        claim: in words.
        parts: the places, as far as they were run.
        said: further lines of evidence.
    """
    words = [part.word for part in parts]
    word: Word = "did not hold" if "did not hold" in words else "held" if set(words) == {"held"} else "undecided"
    counts = [f"{words.count(each)} {each}" for each in ("held", "did not hold", "undecided")]
    return Finding(claim, word, (f"Of {counted(len(parts), 'part')}: {', '.join(counts)}.", *said), tuple(parts))


def improvements(
    samples: Mapping[str, Array], said: Mapping[str, str] | None = None, seeds: Mapping[str, int] | None = None
) -> list[Finding]:
    """For every claim whether its paired differences in Δm lie above zero: all are to hold.

    Each may so be held by itself (an intersection-union test); words that break a claim are Holm-adjusted over all.

    Args:
        samples: the differences of each claim.
        said: of a claim besides, added to its evidence.
        seeds: so many were planned for it.
    """
    found = above_zero(samples)
    findings = []
    for claim in samples:
        if claim not in found.intervals:
            findings.append(Finding(claim, "undecided", ("No seed has finished in both arms.",)))
            continue
        word, why = WORDS[found.words[claim]], found.doubt(claim)
        if word == "undecided" and found.alone[claim] == "better":
            word, why = "held", f" {BY_ITSELF}"
        few = of_seeds(samples[claim], (seeds or {}).get(claim, 0))
        line = f"Difference in Δm: {points(found.intervals[claim])}{few}.{why}{(said or {}).get(claim, '')}"
        findings.append(Finding(claim, word, (line,)))
    return findings


def above_zero(samples: Mapping[str, Array], step: float = 0.0) -> Standings:
    """Which of these paired differences lie above zero, or below, Holm-adjusted over all of them.

    Differences of shares come in a `step` of one case, and are known to half of one.
    """
    return standing(Comparison("", samples, dict.fromkeys(samples, 0.0), least=rounded_deviation(step)))


def of_seeds(sample: Array, planned: int) -> str:
    """``, over 3 of 11 seeds``, where not all have finished."""
    return f", over {len(sample)} of {planned} seeds" if len(sample) < planned else ""


def points(found: Interval) -> str:
    """``+1.2 points (+0.3 to +2.1)``, of a difference between fractions."""
    return relative_of({"": found}, " points").strip()


def arms_of(outcome: Outcome) -> list[str]:
    """The joint arms of a study."""
    return [method for method in outcome.judgement.methods if method != "single-task"]


def delta_p(outcome: Outcome, arm: str, setting: int = 0, metric: str = "") -> str | None:
    """Δp of an arm in per cent, ``+1.15 ±0.16``, as papers print it: of the values themselves, not of errors."""
    shown = interval(p_gains(outcome.findings, arm, setting, metric=metric))
    return None if shown is None else plus_minus(shown, 2, 100)


def p_gains(found: TrialResults, arm: str, setting: int = 0, among: Iterable[str] = (), metric: str = "") -> Array:
    """Δp by seed, of the seeds that the arm, single-task and the arms `among` have; of one metric where it is named."""
    arms = (arm, SINGLE_TASK, *among)
    seeds, changes = sorted(set.intersection(*(set(found.complete(each, setting)) for each in arms))), []
    for task in found.plan.tasks:
        ours, theirs = (found.metrics(each, setting, task.name) for each in arms[:2])
        per_metric = [
            relative_changes(
                [ours[seed][place] for seed in seeds],
                [theirs[seed][place] for seed in seeds],
                higher_is_better=each.higher_is_better,
                ideal=None,
            )
            for place, each in enumerate(task.metrics)
            if seeds and metric in ("", each.name)
        ]
        known = [change for change in per_metric if change is not None]
        if known:
            changes.append(np.mean(known, axis=0))
    return np.array(np.mean(changes, axis=0)) if changes else np.array([])
