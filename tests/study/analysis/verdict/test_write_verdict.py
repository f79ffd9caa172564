"""Every sentence of a verdict is one of a few kinds, and every number in it is held to the results that it speaks of.

The studies are made up at random (seeded), with effects from none to large; sentences are taken apart again by their
grammar, and their numbers compared with what plain numpy and scipy make of the results.
"""

from __future__ import annotations

import functools
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from scipy import special, stats

from report.reading import number, says
from steelyard.study.analysis.multiple_testing import Unit
from steelyard.study.judgement import Cell, Interval, Judgement
from steelyard.study.trial import SINGLE_TASK
from study.by_weights import adjusted, weights
from study.made_up import ACCURACY, RMSE, SCORE, judged, plan

Value = TypeVar("Value")
NAMED = 4
EASED = r"Not repaired, but by itself better than under the plain sum, is (.*?) with (.*)\."
NAMES = {"equal": "The plain sum"}
SECONDS = {SINGLE_TASK: 10.0, "equal": 13.0, "ema": 15.0, "dwa": 14.0, "uw": 19.5, "mgda": 26.0, "stch": 13.0}


@dataclass
class Study:
    """A judgement and the results that it speaks of: ``values[setting][method][seed][task]``."""

    judgement: Judgement
    values: list[dict[str, list[dict[str, float]]]]
    metrics: dict[str, object]
    known: dict[object, object] = field(default_factory=dict)  # what the checks have worked out before

    def sample(self, setting: int, method: str, task: str) -> np.ndarray:
        return np.array([row[task] for row in self.values[setting][method]])

    def label(self, task: str) -> str:
        return next(info.label for info in self.judgement.tasks if info.name == task)

    def named(self, label: str) -> str:
        return next(info.name for info in self.judgement.tasks if info.label == label)

    def cells(self, setting: int, method: str) -> list[Cell]:
        return [cell for cell in self.judgement.cells if (cell.setting, cell.method) == (setting, method)]


KINDS = {
    "two": ([("left", (ACCURACY,)), ("right", (ACCURACY,))], ["equal", "ema", "dwa"], 1, 4),
    "three": ([("a", (ACCURACY,)), ("b", (RMSE,)), ("c", (SCORE,))], ["equal", "ema", "dwa", "uw"], 2, 5),
    "many": ([(f"t{i}", (RMSE,)) for i in range(7)], ["equal", "ema", "dwa", "uw", "mgda", "stch"], 1, 4),
    "without": ([("left", (ACCURACY,)), ("right", (RMSE,))], ["ema", "dwa"], 1, 3),
    "strategies": ([("left", (ACCURACY,)), ("right", (RMSE,))], ["equal", "ema", "dwa", "uw", "mgda", "stch"], 1, 6),
    "pair": ([("left", (ACCURACY,))], ["equal", "ema"], 1, 2),
    "one": ([("left", (ACCURACY,)), ("right", (SCORE,))], ["equal", "ema"], 1, 1),
}


@functools.cache
def study(kind: str, number: int) -> Study:
    metrics, methods, settings, seeds = KINDS[kind]
    random = np.random.default_rng([number, len(metrics), seeds])
    worse = [-0.2, -0.03, 0.0, 0.012, 0.06]
    values = []
    for _ in range(settings):
        here: dict[str, list[dict[str, float]]] = {}
        shared = {name: random.normal(0, 0.004, seeds) for name, _ in metrics}
        for method in (SINGLE_TASK, *methods):
            rows: list[dict[str, float]] = [{} for _ in range(seeds)]
            for name, (metric, *_) in metrics:
                effect = 0.0 if method == SINGLE_TASK else float(random.choice(worse[2:] if number == 1 else worse))
                effect = effect if method != "equal" or number == 3 else -abs(effect) - 0.02
                noise = random.normal(
                    0, float(random.choice([0.0005, 0.001] if kind == "strategies" else [0.0005, 0.004, 0.02])), seeds
                )
                share = 1 + shared[name] + (effect + noise) * (1 if metric.higher_is_better else -1)
                for row, times in zip(rows, share, strict=True):
                    row[name] = float(times) * {"accuracy": 0.8, "RMSE": 2.5, "score": 41.0}[metric.name]
            here[method] = rows
        values.append(here)
    planned = plan(methods=[SINGLE_TASK, *methods], seeds=seeds, settings=settings, metrics=metrics)
    with tempfile.TemporaryDirectory() as folder:
        found = judged(Path(folder) / "s", planned, values, SECONDS)
    return Study(found, values, {name: metric[0] for name, metric in metrics})


def t_interval(sample: np.ndarray, among: int = 1) -> Interval:
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(1 - 0.025 / among, len(sample) - 1) * stats.sem(sample))
    return Interval(mean, mean - half, mean + half)


def signed(text: str, value: float) -> bool:
    """Zero has a plus too: +0.0."""
    return says(text, value) and text[0] in "+−"


def check_bounded(text: str, interval: Interval, times: float, unit: str) -> None:
    """ "−3.51 points (−4.45 to −2.57)"."""
    mean, _, bounds = text.partition(" (")
    assert mean.endswith(unit)
    assert signed(mean.removesuffix(unit), interval.mean * times), (text, interval)
    if math.isinf(interval.high):
        assert bounds == ""
        return
    low, high = bounds.removesuffix(")").split(" to ")
    assert signed(low, interval.low * times)
    assert signed(high, interval.high * times)
    decimals = {len(part.partition(".")[2]) for part in (mean.removesuffix(unit), low, high)}
    assert len(decimals) == 1, "all to the same decimals"


def check_difference(found: Study, setting: int, method: str, task: str, text: str) -> None:
    """ "accuracy 91.10 % against 94.61 % alone, −3.51 points (−4.45 to −2.57)"."""
    metric = found.metrics[task]
    times, unit, points = (100.0, " %", " points") if metric.percent else (1.0, "", "")
    said = re.fullmatch(r"(\w+) (\S+)( %)? against (\S+)( %)? alone, (.*)", text)
    assert said, text
    name, ours, first, alone, second, change = said.groups()
    assert (name, first or "", second or "") == (metric.name, unit, unit)
    mine, theirs = found.sample(setting, method, task), found.sample(setting, SINGLE_TASK, task)
    assert says(ours, mine.mean() * times)
    assert says(alone, theirs.mean() * times)
    check_bounded(change, t_interval(mine - theirs), times, points)


def check_sharing(found: Study, setting: int, method: str, who: str, said: str, cells: Sequence[Cell]) -> None:
    """Who, and by how much: the largest relative changes first, four of them at most."""
    total = len(found.judgement.tasks)
    names = [cell.task for cell in cells]
    if len(cells) == 1:
        assert who == found.label(names[0])
        check_difference(found, setting, method, names[0], said)
        return
    every = "both tasks" if total == 2 else f"all {total} tasks"
    assert who == (every if len(cells) == total else f"{len(cells)} of {total} tasks")
    assert said.startswith("above all ") == (len(cells) > NAMED)
    parts = said.removeprefix("above all ").split("; ")
    names = [cell.task for cell in by_size(cells)[:NAMED]]
    assert len(parts) == len(names)
    for name, part in zip(names, parts, strict=True):
        assert part.startswith(found.label(name) + " ")
        check_difference(found, setting, method, name, part.removeprefix(found.label(name) + " "))


def by_size(cells: Sequence[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: abs(cell.relative.mean) if cell.relative else 0, reverse=True)


def leaning(found: Study, setting: int, cell: Cell) -> str:
    """Where the plain interval lies wholly on one side of zero."""
    low, high = cell.difference.low, cell.difference.high
    if low <= 0 <= high:
        return ""
    return "better" if (cell.difference.mean > 0) == found.metrics[cell.task].higher_is_better else "worse"


def undecided(found: Study, setting: int, method: str, lean: str) -> list[Cell]:
    open_ = [cell for cell in found.cells(setting, method) if cell.verdict == "undecided"]
    return [cell for cell in open_ if leaning(found, setting, cell) == lean]


def with_verdict(found: Study, setting: int, method: str, verdict: str) -> list[Cell]:
    return [cell for cell in found.cells(setting, method) if cell.verdict == verdict]


def plain_p_value(found: Study, setting: int, method: str, task: str) -> float:
    """Twice the smallest of the one-sided t tests against the region's edges."""
    better = improvement(found, setting, method, task)
    region = 0.01 * abs(found.sample(setting, SINGLE_TASK, task).mean())

    def above(edge: float, sign: int) -> float:
        return float(stats.ttest_1samp(sign * better, sign * edge, alternative="greater").pvalue)

    return 2 * min(above(region, 1), above(-region, -1), max(above(-region, 1), above(region, -1)))


def change_p_value(sample: np.ndarray, region: float) -> float:
    """Of "above zero", "below zero", and "within the region", the one nearest to being said."""
    if len(sample) < 2:
        return math.nan
    above, below = (stats.ttest_1samp(sample, edge, alternative="greater").pvalue for edge in (0.0, -region))
    return float(2 * min(above, 1 - above, max(below, stats.ttest_1samp(sample, region, alternative="less").pvalue)))


ALL = ""
Asked = tuple[int, str, str]  # setting, method, task


def against(found: Study, method: str, task: str) -> str:
    """The plain sum over all tasks, where it was run; else single-task."""
    return "equal" if task == ALL and method != "equal" and "equal" in found.judgement.methods else SINGLE_TASK


def once(function: Callable[..., Value]) -> Callable[..., Value]:
    """Worked out once for every study."""

    @functools.wraps(function)
    def asked(found: Study, *question: object) -> Value:
        key = (function.__name__, *question)
        if key not in found.known:
            found.known[key] = function(found, *question)
        return found.known[key]

    return asked


@once
def family(found: Study) -> tuple[dict[Asked, float], list[Unit[Asked]]]:
    """The plain p-value of every question of a study, and how they stand together."""
    joint = [method for method in found.judgement.methods if method != SINGLE_TASK]
    units, p_values = [], {}
    for setting in range(len(found.values)):
        for task in (ALL, *found.metrics):
            asked = {method: (setting, method, task) for method in joint}
            plain = asked.pop("equal", None)
            units.append(Unit(plain, tuple(asked.values())))
            for method in joint:
                if task == ALL:
                    sample = change_from(found, setting, method, against(found, method, ALL))
                    p = change_p_value(sample, 0.01 if against(found, method, ALL) == SINGLE_TASK else 0.0)
                else:
                    p = plain_p_value(found, setting, method, task) if len(found.judgement.seeds) > 1 else math.nan
                if not math.isnan(p):
                    p_values[setting, method, task] = float(min(1.0, p))
    return p_values, units


@once
def all_adjusted(found: Study) -> dict[Asked, float]:
    return adjusted(*family(found))


def alone_only(found: Study, question: Asked) -> bool:
    """Decided by itself, but not with the rest of the study."""
    p_values, _ = family(found)
    return question in p_values and p_values[question] <= 0.05 < all_adjusted(found)[question]


def together_told(found: Study, question: Asked) -> bool:
    return all_adjusted(found).get(question, 1.0) <= 0.05


def check_what_would_decide(found: Study, setting: int, method: str, tasks: Sequence[str], more: str) -> None:
    questions = [(setting, method, task) for task in tasks]
    alone = [question for question in questions if alone_only(found, question)]
    which = "it" if len(tasks) == 1 else f"{len(alone)} of them"
    said = f" Judged alone {which} would be decided, but not with the rest of the study." if alone else ""
    assert more.startswith(said), (more, said)
    rest = more.removeprefix(said)
    needed = [seeds_needed(found, question) for question in questions]
    if None in needed:
        assert rest == ""
        return
    low, high = max(low for low, _ in needed), max(high for _, high in needed)
    count = f"{low} to {high}" if low < high else str(high)
    assert rest == f" Likely to settle {'it' if len(tasks) == 1 else 'them'}: {count} seeds."


@once
def seeds_needed(found: Study, question: Asked) -> tuple[int, int] | None:
    """From how many to how many seeds have a power of 80 %, for the effects at the ends of its 80 % interval."""
    setting, method, task = question
    if task == ALL:
        sample, region = change_from(found, setting, method, against(found, method, ALL)), 0.0
    else:
        sample = improvement(found, setting, method, task)
        region = 0.01 * abs(found.sample(setting, SINGLE_TASK, task).mean())
    n = len(sample)
    if n < 3:
        return None
    p_values, units = family(found)
    alpha = 0.05 * weights(set(p_values), units, 0.8)[question]
    effect = abs(abs(sample.mean()) - region) / sample.std(ddof=1)
    doubt = stats.norm.ppf(0.9) * math.sqrt(1 / n + effect**2 / (2 * (n - 1)))

    def needed(size: float) -> int | None:
        for count in range(n + 1, 101) if size > 0 else ():
            edge = stats.t.ppf(1 - alpha / 2, count - 1)
            if special.nctdtr(count - 1, size * math.sqrt(count), edge) <= 0.2:
                return count
        return None

    low, high = needed(effect + doubt), needed(effect - doubt)
    return None if low is None or high is None else (low, high)


def delta_m(found: Study, setting: int, method: str) -> Interval:
    return t_interval(change_from(found, setting, method, SINGLE_TASK))


def overall_of(found: Study, setting: int) -> list[str]:
    """The methods of which the effect over all tasks is told."""
    joint = [method for method in found.judgement.methods if method != SINGLE_TASK]
    if "equal" in joint:
        return ["equal"]
    return sorted(joint, key=lambda method: delta_m(found, setting, method).mean, reverse=True)[:NAMED]


def check_overall(found: Study, setting: int, sentences: list[str]) -> None:
    """The effect of sharing over all tasks is always told, decided or not."""
    if len(found.metrics) == 1:
        assert sentences == ["One task leaves nothing to share: what differs here is how it is trained."]
        return
    methods = overall_of(found, setting)
    assert len(sentences) == len(methods)
    for method, text in zip(methods, sentences, strict=True):
        name = NAMES.get(method, method).replace("The", "the")
        change = delta_m(found, setting, method)
        if together_told(found, (setting, method, ALL)):
            sample = change_from(found, setting, method, SINGLE_TASK)
            within = change_p_value(sample, 0.01) < 0.999 * stats.ttest_1samp(sample, 0).pvalue
            better = "better" if change.mean > 0 else "worse"
            slight = ", but by less than 1 %" if max(-change.low, change.high) < 0.01 else ""
            head, end = f"Over all tasks {name} is {better} than single-task learning{slight}: Δm ", "."
            if within:
                head = f"Over all tasks {name} is within 1 % of single-task learning: Δm "
            assert text.endswith(".")
            said = text.removeprefix(head).removesuffix(end)
        else:
            head = f"Over all tasks it is undecided whether {name} is better or worse than single-task learning: Δm "
            said, _, more = (
                text.removeprefix(head).partition(".")
                if change.low == -math.inf
                else (re.fullmatch(r"(.*?\))(\.)(.*)", text.removeprefix(head)).groups())
            )
            if change.low == -math.inf:
                said, more = re.fullmatch(r"(.* %)\.(.*)", text.removeprefix(head)).groups()
            check_what_would_decide(found, setting, method, [ALL], more)
        assert text.startswith(head)
        check_bounded(said, change, 100.0, " %")


def in_words(labels: list[str], total: int) -> str:
    """``a, b and c``; of many the first."""
    if len(labels) > NAMED:
        return f"{len(labels)} of {total} tasks ({', '.join(labels[:NAMED])}, …)"
    return " and ".join(", ".join(labels).rsplit(", ", 1))


def check_recommendation(found: Study, setting: int, sentences: list[str]) -> None:
    """What follows: share, and under what; or train alone; or undecided."""
    methods = [method for method in found.judgement.methods if method != SINGLE_TASK]
    plain = "equal" in methods
    better = {
        method: change_from(found, setting, method, "equal" if plain else SINGLE_TASK).mean()
        for method in methods
        if method != "equal" and (not plain or together_told(found, (setting, method, ALL)))
    }
    better = {method: mean for method, mean in better.items() if mean > 0 or not plain}
    best = max(better, key=lambda method: better[method]) if better else "equal"
    change = delta_m(found, setting, best)
    if change.low == -math.inf or len(found.metrics) == 1:
        assert sentences == []
        return
    # It was chosen of so many by the same numbers.
    among = 1 if best == "equal" and plain else len(methods) - plain
    clearly = t_interval(change_from(found, setting, best, SINGLE_TASK), among)
    hurt = by_size(with_verdict(found, setting, best, "negative transfer"))
    labels = [found.label(cell.task) for cell in hurt]
    total = len(found.metrics)
    named, helped = in_words(labels, total), by_size(with_verdict(found, setting, best, "gain"))
    gains = in_words([found.label(cell.task) for cell in helped], total)
    name = NAMES.get(best, best).replace("The", "the")
    (said,) = sentences
    if len(hurt) == total or (change.high < 0 and clearly.low <= -0.01 and not (hurt or helped)):
        assert said == "Train every task alone: nothing here is shown to be as good."
    elif clearly.low > -0.01:
        shown = re.fullmatch(r"Share under (.*), at (\S+) × the training time of single tasks(.*)\.", said)
        assert shown[1] == name + (f", and train {named} alone as well" if hurt else "")
        assert says(shown[2], SECONDS[best] / (total * SECONDS[SINGLE_TASK]) + len(hurt) / total)
        worse = "" if clearly.low > 0 else ": no more than 1 % worse over all tasks"
        assert shown[3] == (" in all" if hurt else "") + worse
    elif hurt:
        open_ = undecided(found, setting, best, "") + undecided(found, setting, best, "worse")
        open_ += undecided(found, setting, best, "better")
        rest = total - len(hurt) - len(helped)
        told = [f"helps {gains}"] * bool(helped) + [f"costs the other{'s' * (rest > 1)} nothing that matters"] * bool(
            rest
        )
        others = "; whether the others should share is undecided"
        if total - len(hurt) == 1:
            others = "; whether sharing helps the other is undecided"
        if not open_:
            others = f" as well: sharing under {name} {' and '.join(told)}"
        assert said == f"Train {named} alone{others}."
    elif helped and change.high < 0:
        head = f"Whether to share is undecided: {name} helps {gains}, and over all tasks it is by itself worse, Δm "
        assert said.startswith(head)
        check_bounded(said.removeprefix(head).removesuffix("."), change, 100.0, " %")
    else:
        under = re.fullmatch(
            r"Whether to share is undecided(?:: under (\w+), which is better than the plain sum, it is Δm (.*?\)))?\."
            r"(?: (\w+) was chosen of (\d+) by the same numbers, and would have to be clearer\.)?",
            said,
        )
        assert bool(under[3]) == (change.low > -0.01)
        assert not under[3] or (under[3], int(under[4])) == (best, among)
        assert under[1] == (best if best != "equal" and plain else None)
        if under[1]:
            check_bounded(under[2], change, 100.0, " %")


def change_from(found: Study, setting: int, method: str, baseline: str) -> np.ndarray:
    """Δm by seed: mean over tasks of the relative change, linearised around the ratio of means."""
    every = []
    for task, metric in found.metrics.items():
        ours, theirs = found.sample(setting, method, task), found.sample(setting, baseline, task)
        if metric.ideal is not None:
            ours, theirs = abs(metric.ideal - ours), abs(metric.ideal - theirs)
        ratio = ours.mean() / theirs.mean()
        if len(ours) > 1:  # a ratio to a noisy mean is too large on average
            off = (ratio * theirs.var(ddof=1) - np.cov(ours, theirs)[0, 1]) / len(ours) / theirs.mean() ** 2
        else:
            off = 0.0
        change = ratio - off - 1 + (ours - ratio * theirs) / theirs.mean()
        every.append(change if metric.ideal is None and metric.higher_is_better else -change)
    return np.mean(every, axis=0)


def check_changes(found: Study, setting: int, said: str, known: dict[str, Interval]) -> list[str]:
    """ "ema +4.2 % (+1.1 to +7.3), dwa …", the best first; the methods that are named."""
    counted = re.match(r"(\d+) of (\d+) strategies, above all ", said)
    parts = re.split(r", (?=\w+ [+−])", said[counted.end() :] if counted else said)
    named = []
    for part in parts:
        method, _, text = part.partition(" ")
        check_bounded(text, known[method], 100.0, " %")
        named.append(method)
    means = [known[method].mean for method in named]
    assert means == sorted(means, reverse=True)
    assert bool(counted) == (len(named) == NAMED and counted is not None)
    return named


def check_cost(text: str, methods: Sequence[str]) -> None:
    said = re.fullmatch(
        r"One joint network \((.*)\) trains in (\S+) × the time of the (\d+) single-task networks?\.", text
    )
    reference = "equal" if "equal" in methods else methods[1]
    assert said[1] == {"equal": "the plain sum"}.get(reference, reference)
    assert says(said[2], SECONDS[reference] / (int(said[3]) * SECONDS[SINGLE_TASK]))


def check_repairs(found: Study, setting: int, sentences: list[str]) -> None:
    """Every task that the plain sum hurts is told: repaired, eased or neither."""
    methods = [method for method in found.judgement.methods if method not in (SINGLE_TASK, "equal")]
    hurt = with_verdict(found, setting, "equal", "negative transfer") if "equal" in found.judgement.methods else []
    verdict = {(cell.method, cell.task): cell.verdict for cell in found.judgement.cells if cell.setting == setting}
    fine = ("gain", "no difference")
    mended = {cell.task: [m for m in methods if verdict[m, cell.task] in fine] for cell in hurt}
    if len(hurt) > NAMED:
        counts = ", ".join(f"{m} {sum(verdict[m, cell.task] in fine for cell in hurt)}" for m in methods)
        assert sentences == [f"Of the {len(hurt)} tasks that the plain sum hurts, so many are repaired: {counts}."]
        return
    told = {}
    for text in sentences:
        if said := re.fullmatch(r"No strategy here is shown to repair (.*)\.", text):
            told |= {found.named(label): [] for label in re.split(", | or ", said[1])}
        elif said := re.fullmatch(
            r"Not repaired, but by itself better than under the plain sum, is (.*?) with (.*)\.", text
        ):
            check_eased(found, setting, found.named(said[1]), said[2], mended)
            told.setdefault(found.named(said[1]), [])
        else:
            said = re.fullmatch(
                r"(?:(\d+) of (\d+) strategies repair (.*), above all )?(.*?)(?: repairs? (.*))?\.", text
            )
            count, among, first, names, second = said.groups()
            task = found.named(first or second)
            pairs = re.findall(r"(\w+) \(at (\S+) × the plain sum's training time\)", names)
            for method, ratio in pairs:
                assert says(ratio, SECONDS[method] / SECONDS["equal"])
            best = sorted(mended[task], key=lambda m: improvement(found, setting, m, task).mean(), reverse=True)
            assert [method for method, _ in pairs] == best[:NAMED]
            assert (count is not None) == (len(best) > NAMED)
            assert count is None or (int(count), int(among)) == (len(best), len(methods))
            assert count is not None or (" repairs " in text) == (len(best) == 1)
            told[task] = best
    assert {task: sorted(who) for task, who in told.items()} == {task: sorted(who) for task, who in mended.items()}


def improvement(found: Study, setting: int, method: str, task: str, baseline: str = SINGLE_TASK) -> np.ndarray:
    sign = 1 if found.metrics[task].higher_is_better else -1
    return sign * (found.sample(setting, method, task) - found.sample(setting, baseline, task))


def check_eased(found: Study, setting: int, task: str, said: str, mended: dict[str, list[str]]) -> None:
    metric = found.metrics[task]
    counted = re.match(r"\d+ of \d+ strategies, above all ", said)
    means = []
    for part in (said[counted.end() :] if counted else said).split("; "):
        method, text = re.fullmatch(r"(\w+) by (.*)", part).groups()
        assert method not in mended[task]
        eased = improvement(found, setting, method, task, "equal")
        assert stats.ttest_1samp(eased, 0).pvalue <= 0.05
        check_bounded(text, t_interval(eased), 100 if metric.percent else 1, " points" if metric.percent else "")
        means.append(eased.mean())
    assert means == sorted(means, reverse=True)


def check_against_the_sum(found: Study, setting: int, sentences: list[str]) -> None:
    methods = [method for method in found.judgement.methods if method not in (SINGLE_TASK, "equal")]
    if "equal" not in found.judgement.methods or len(found.judgement.seeds) < 2:
        assert sentences == []
        return
    samples = {method: change_from(found, setting, method, "equal") for method in methods}
    known = {method: t_interval(sample) for method, sample in samples.items()}
    told = {method for method in methods if together_told(found, (setting, method, ALL))}
    slight = {m for m in told if max(abs(known[m].low), abs(known[m].high)) < 0.01}
    sides = {
        "better": {m for m in told - slight if known[m].mean > 0},
        "worse": {m for m in told - slight if known[m].mean < 0},
    }
    over = r"Over all tasks \(mean change relative to the plain sum\), "
    expected = []
    for text in sentences:
        if said := re.fullmatch(over + r"(better|worse) than it: (.*)\.", text):
            named, all_ = check_changes(found, setting, said[2], known), sides[said[1]]
            expected.append(said[1])
        elif said := re.fullmatch(over + r"told from it, but by less than 1 %: (.*)\.", text):
            named, all_ = check_changes(found, setting, said[1], known), slight
            expected.append("slight")
        else:
            said = re.fullmatch(
                over + r"nothing is shown to be better than it(?:: (.*?))?(?: is the highest of (\d+))?\.", text
            )
            best = max(known, key=lambda method: known[method].mean)
            assert (said[1] is None) == (best in told)
            assert said[1] is None or check_changes(found, setting, said[1], known) == [best]
            assert (said[2] is not None) == (said[1] is not None and len(known) > 1)
            assert said[2] in (None, str(len(known)))
            expected.append("better")
            assert not sides["better"]
            continue
        assert set(named) <= all_
        assert len(named) == min(len(all_), NAMED)
        if len(all_) > NAMED:
            assert f"{len(all_)} of {len(methods)} strategies, above all" in text
            assert min(abs(known[m].mean) for m in named) >= max(abs(known[m].mean) for m in all_ - set(named))
    assert expected == ["better", *["worse"] * bool(sides["worse"]), *["slight"] * bool(slight)]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_and_every_number(kind: str, number: int) -> None:
    found = study(kind, number)
    judgement = found.judgement
    several = len(judgement.settings) > 1
    sentences = list(judgement.verdict)
    missing = judgement.planned - judgement.finished
    if missing:
        assert sentences.pop(0) == f"Preliminary: {missing} of {judgement.planned} trials are not finished."
    for setting in judgement.settings:
        head = f"With {setting.label} of the labels: "
        here = [text.removeprefix(head) for text in sentences if not several or text.startswith(head)]
        here = [text for text in here if not text.startswith(("One seed", "Two seeds"))]
        here = [
            text[:1].upper() + text[1:] if several and text.split()[0] not in judgement.methods else text
            for text in here
        ]
        check_setting(found, setting.index, here)
    rest = [text for text in sentences if not text.startswith("With ")] if several else []
    assert rest == []
    tail = {1: "One seed cannot tell a difference from chance: run at least 3 seeds, better 5.",
            2: "Two seeds show only what is very large: run at least 3 seeds, better 5."}  # fmt: skip
    assert sentences[-1] == tail.get(len(judgement.seeds), sentences[-1])
    assert sum(text in tail.values() for text in sentences) == (len(judgement.seeds) < 3)


def check_setting(found: Study, setting: int, sentences: list[str]) -> None:
    methods = found.judgement.methods
    overall, advice, repairs, versus, cost, shared = [], [], [], [], [], []
    for text in sentences:
        if text.startswith("Over all tasks (mean change"):
            versus.append(text)
        elif text.startswith(("Over all tasks", "One task leaves")):
            overall.append(text)
        elif text.startswith(("Share under", "Train ", "Whether to share")):
            advice.append(text)
        elif text.startswith("One joint network"):
            cost.append(text)
        elif re.match(r"No strategy|Not repaired|Of the \d", text) or re.search(r" repairs? ", text):
            repairs.append(text)
        else:
            shared.append(text)
    order = [text for group in (overall, advice, shared, repairs, versus, cost) for text in group]
    assert order == sentences, "the answer, what follows, each task, what repairs it, what is better, what it costs"
    check_overall(found, setting, overall)
    check_recommendation(found, setting, advice)
    for cell in found.judgement.cells:
        if cell.setting == setting and cell.method != SINGLE_TASK:
            told = together_told(found, (setting, cell.method, cell.task))
            assert (cell.verdict != "undecided") == told, cell
    for text in cost:
        check_cost(text, methods)
    assert len(cost) == (len(found.metrics) > 1)
    check_repairs(found, setting, repairs)
    check_against_the_sum(found, setting, versus)
    expected = []
    for method in [m for m in methods if m == "equal"] or methods[1:]:
        name = NAMES.get(method, method)
        for verdict, words in (("negative transfer", "hurts"), ("gain", "helps"),
                               ("no difference", "makes no difference that matters for")):  # fmt: skip
            if cells := with_verdict(found, setting, method, verdict):
                expected.append((f"{name} {words} ", cells, method, ""))
        for lean in ("worse", "better", ""):
            if cells := undecided(found, setting, method, lean):
                start = f"{name} seems to make " if lean else f"Whether {name[:1].lower() + name[1:]} hurts or helps "
                expected.append((start, cells, method, f" {lean}, but whether by enough to matter" if lean else "\0"))
    assert len(shared) == len(expected)
    for text, (start, cells, method, open_) in zip(shared, expected, strict=True):
        assert text.startswith(start)
        who, _, said = text.removeprefix(start).partition(": ")
        if open_:
            who = who.removesuffix(open_.rstrip("\0") + " is undecided")
            said, _, more = re.fullmatch(r"(.*?)\.(?= |$)()(.*)", said).groups()
            check_what_would_decide(found, setting, method, [cell.task for cell in cells], more)
        else:
            said = said.removesuffix(".")
        check_sharing(found, setting, method, who, said, cells)


def test_the_studies_say_every_kind_of_sentence() -> None:
    """Or the checks above check nothing."""
    said = "\n".join(
        sentence for kind in KINDS for place in range(4) for sentence in study(kind, place).judgement.verdict
    )
    for words in ("hurts", "helps", "makes no difference that matters", "seems to make", "is undecided: ", "repairs ",
                  "strategies repair", "Not repaired, but by itself better", "No strategy here", "so many are repaired",
                  "better than it:", "worse than it:", "nothing is shown", "Judged alone", "Likely to settle",
                  "is better than single-task learning", "is worse than single-task learning", "Share under",
                  "Over all tasks it is undecided", " alone as well, at ", "Whether to share is",
                  "above all", "is the highest of"):  # fmt: skip
        assert words in said, words
    assert number("−1.5") == -1.5
