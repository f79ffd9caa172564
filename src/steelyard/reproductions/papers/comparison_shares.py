"""How often sharing improves a task in ``comparison``: the share of a pair's cases, by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from steelyard.io.lists_and_counts import counted, first_few
from steelyard.reproductions.evidence import NAMED, above_zero, beside_alone
from steelyard.reproductions.papers.comparison_choices import WEIGHTINGS, even_amounts
from steelyard.reproductions.reproduction import Finding, Outcome, Outcomes, Word
from steelyard.study.analysis.statistics import Array, interval, rounded_deviation
from steelyard.study.judgement import Interval
from steelyard.study.trial import SINGLE_TASK

Improved = Mapping[tuple[str, int], Mapping[int, Array]]
"""(weighting, setting) -> seed -> by task, 1 where it is better than alone."""


def typically(outcomes: Outcomes, where: str, of_all: bool) -> Finding:
    """Does sharing improve less than half of the cases of a pair (amount, weighting, task), in the mean over pairs?

    By seed: the share of each pair counts once, however many amounts of labels it was trained at. Only where both tasks
    have as many: otherwise the task with fewer takes more steps together than alone.

    A case that sharing leaves as it was improves in every other seed, so these shares make improvements too many: they
    show that less than half improve, but not that more do. That takes gains that are shown of more than half.

    Args:
        outcomes: pair -> its study.
        where: in words.
        of_all: whether it speaks of all places, which may not have been run yet.
    """
    # `best-fixed` is left out: where it chose equal weights it is the plain sum once more.
    by_pair = {
        pair: {
            (arm, setting): _improved(each, arm, setting)
            for setting in even_amounts(each).values()
            for arm in WEIGHTINGS
        }
        for pair, each in outcomes.items()
    }
    everything = [case for cases in by_pair.values() for case in cases.values()]
    seeds = sorted(set.intersection(*map(set, everything))) if everything else []
    shares = np.array([np.mean([_share(cases, [seed]) for cases in by_pair.values()]) for seed in seeds])
    # The smallest step of that mean: one case of the pair with the most.
    most = max((len(each.plan.tasks) * len(by_pair[pair]) for pair, each in outcomes.items()), default=1)
    step = 1 / (most * max(len(by_pair), 1))
    share = interval(shares, least=rounded_deviation(step))
    gained = _gained(outcomes)
    word: Word = "undecided"
    if above_zero({"half": 0.5 - shares}, step=step).words.get("half") == "better":
        word = "held"
    elif gained and np.mean(list(gained.values())) > 0.5:
        word = "did not hold"
    said = [_missing(by_pair)]
    if share:
        planned = max(len(each.plan.seeds) for each in outcomes.values())
        of = f"{len(seeds)} of {planned}" if len(seeds) < planned else f"{planned}"
        mean = f"in the mean over {len(by_pair)} pairs " if len(by_pair) > 1 else ""
        said = [
            f"Seed by seed, {mean}{100 * share.mean:.0f} % of a pair's comparisons with training alone come out better "
            f"in the main metric ({_range(share)}, over {of} seeds)."
        ]
    cases = "seed by seed, less than half of a pair's cases (amount, weighting, task) come out better than alone"
    claim = f"Sharing typically does not improve a task: {cases}, {where}"
    return Finding(claim, word, (*said, *_by(by_pair), _counts(outcomes)), of_all=of_all)


def _improved(outcome: Outcome, arm: str, setting: int) -> dict[int, Array]:
    """Seed -> by task, 1 where it is better than alone; a joint network that failed improves none."""
    found = outcome.findings
    by_seed = {seed: np.array(better > 0, dtype=float) for seed, better in beside_alone(found, arm, setting).items()}
    alone = found.complete(SINGLE_TASK, setting)
    for seed, trial in found.trials(arm, setting):
        if trial in found.failed and seed in alone:
            by_seed[seed] = np.zeros(len(found.plan.tasks))
    return by_seed


def _share(cases: Improved, seeds: Sequence[int]) -> float:
    return float(np.mean(np.concatenate([case[seed] for case in cases.values() for seed in seeds])))


def _missing(by_pair: Mapping[str, Improved]) -> str:
    """Why there is no mean over pairs."""
    without = [
        f"{arm} on {pair}"
        for pair, cases in by_pair.items()
        for arm in WEIGHTINGS
        if not all(case for (of, _), case in cases.items() if of == arm)
    ]
    return f"No seed has finished on all pairs{f': none of {first_few(without, NAMED)}' if without else ''}."


def _by(by_pair: Mapping[str, Improved]) -> list[str]:
    """``By pair, over all its seeds: Multi-MNIST 3 %, …``"""
    shares = {
        pair: np.mean(np.concatenate(values))
        for pair, cases in by_pair.items()
        if (values := [value for case in cases.values() for value in case.values()])
    }
    said = ", ".join(f"{pair} {100 * share:.0f} %" for pair, share in shares.items())
    return [f"By pair, over all its seeds: {said}."] if len(by_pair) > 1 and shares else []


def _range(found: Interval) -> str:
    return f"{100 * max(found.low, 0.0):.0f} to {100 * min(found.high, 1.0):.0f} %"


def _words(outcome: Outcome) -> Counter[str]:
    """How often each word is the verdict on a case."""
    amounts = even_amounts(outcome).values()
    return Counter(
        cell.verdict
        for cell in outcome.judgement.cells
        if cell.verdict and cell.method in WEIGHTINGS and cell.setting in amounts
    )


def _gained(outcomes: Outcomes) -> dict[str, float]:
    """Of each pair the share of its cases of which a gain is shown."""
    return {
        pair: _words(each)["gain"] / (len(even_amounts(each)) * len(WEIGHTINGS) * len(each.plan.tasks))
        for pair, each in outcomes.items()
    }


def _counts(outcomes: Outcomes) -> str:
    """``Verdicts on 48 cases: 0 gain, …``"""
    words = sum(map(_words, outcomes.values()), Counter[str]())
    return (
        f"Verdicts on {counted(words.total(), 'case')}: {words['gain']} gain, "
        f"{words['no difference']} no difference, {words['negative transfer']} negative transfer, "
        f"{words['undecided']} undecided."
    )
