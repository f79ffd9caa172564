"""``comparison``: when sharing pays, by pair of tasks, weighting, and amount of training data per task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from steelyard.io.lists_and_counts import counted, listed
from steelyard.reproductions.evidence import (
    BY_ITSELF,
    REGION,
    WORDS,
    Comparison,
    above_zero,
    beside_alone,
    each_beaten,
    gains,
    of_seeds,
    one_task,
    points,
    standing,
    standings,
    together,
)
from steelyard.reproductions.reproduction import Experiment, Finding, Outcome, Outcomes, Reproduction, Size, Word
from steelyard.study.analysis.number_phrases import relative_of
from steelyard.study.analysis.statistics import LEVEL, Array, holm, interval, not_worse, rounded_deviation
from steelyard.study.judgement import Interval
from steelyard.study.trial import SINGLE_TASK

WEIGHTINGS = ("equal", "dwa", "uw")
ARMS = ",".join(("single-task", "equal", "best-fixed", *WEIGHTINGS[1:]))

PAIRS = (("seg", "depth"), ("depth", "normals"), ("seg", "normals"))  # of NYUv2
# Of QM8: one energy by two methods of quantum chemistry, and an energy beside a strength of the same state.
ALIKE, UNLIKE = ("E1-CC2", "E1-PBE0"), ("E1-CC2", "f1-CC2")
# Of Tox21: two assays of one receptor, and one of them beside one of the cell's stress.
RECEPTOR, STRESS = ("NR-AR", "NR-AR-LBD"), ("NR-AR", "SR-MMP")
CENSUS = ("income", "never-married")
SMALL = {"left": 0.02, "right": 0.1}, {"left": 0.1, "right": 0.02}
UNEVEN = {"left": 0.05, "right": 0.5}, {"left": 0.5, "right": 0.05}
FEW = {"E1-CC2": 0.05, "E1-PBE0": 1.0}
AMOUNTS, EVERY = (0.01, 0.05, 0.25, 1.0), (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
# Of an epoch at least, so that an amount of labels is not an amount of training: as many as a quarter of Multi-MNIST's
# makes, and all of QM8's.
STEPS, FEW_STEPS, STEPS_QM8 = 98, 40, 68
EPOCHS, PATIENCE = 60, 8  # of the pairs at one amount, which ten epochs left improving
EPOCHS_BY_AMOUNT, PATIENCE_BY_AMOUNT = 30, 4
# √10 times the problems' own: the edge at which the choice of `ema` on digits, and of `db-mtl` on rooms, came to lie.
RATE, ROOM_RATE = 0.00632, 0.00316


def experiments(size: Size) -> tuple[Experiment, ...]:
    if size == "quick":
        digits = _digits((0.02, 0.1, *SMALL), epochs=6, epoch_steps=FEW_STEPS)
        return digits, _mixed((0.1,), epochs=6), _painted((0.1,), epochs=6)
    # Chosen on one seed, the rates of `ema` on SARCOS moved its arms by 4 to 9 points: more than seeds do.
    tuned = {"seeds": 5, "tune": 3, "tune_seeds": 3, "tune_beyond": 2}
    if size == "real":
        converged = {**tuned, "epochs": EPOCHS, "patience": PATIENCE}
        return (
            _digits((*AMOUNTS, *UNEVEN), epochs=EPOCHS_BY_AMOUNT, patience=PATIENCE_BY_AMOUNT, **tuned),
            _mixed((0.25,), **converged),
            _painted((0.25,), **converged),
            *(_molecules(pair, (0.25,), **converged) for pair in (ALIKE, UNLIKE)),
            *(_assays(pair, (0.25,), **converged) for pair in (RECEPTOR, STRESS)),
            _census((0.25,), **converged),
            _few(**converged),
        )
    every = tuple({"left": left, "right": right} for left in EVERY for right in EVERY)
    whole = {**tuned, "epochs": 100}
    return (
        _digits(every, **whole),
        *(study(EVERY, **whole) for study in (_mixed, _painted, _census)),
        *(_molecules(pair, EVERY, **whole) for pair in (ALIKE, UNLIKE)),
        *(_assays(pair, EVERY, **whole) for pair in (RECEPTOR, STRESS)),
        *(_rooms(pair, EVERY, **whole) for pair in PAIRS),
        _few(**whole),
    )


Settings = tuple[float | Mapping[str, float], ...]


def _digits(settings: Settings, epoch_steps: int = STEPS, **given: Any) -> Experiment:
    about = "homogeneous: two digits in one image, by the amount of labels for each"
    return _images("Multi-MNIST", about, "multi-mnist", settings, epoch_steps=epoch_steps, **given)


def _mixed(settings: Settings, **given: Any) -> Experiment:
    about = "heterogeneous: a digit and an item of clothing in one image"
    return _images("MNIST + Fashion", about, "mnist-fashion", settings, **given)


def _painted(settings: Settings, **given: Any) -> Experiment:
    about = "heterogeneous: name the left digit, and paint the image again"
    return _images("Digit + reconstruction", about, "digit-reconstruction", settings, **given)


def _images(name: str, about: str, problem: str, settings: Settings, **given: Any) -> Experiment:
    return Experiment(name, about, problem, ARMS, settings=settings, batch_size=128, learning_rate=RATE, **given)


def _molecules(pair: tuple[str, str], settings: Settings, **given: Any) -> Experiment:
    about = {
        ALIKE: "homogeneous: one energy of a molecule by two methods of quantum chemistry",
        UNLIKE: "heterogeneous: an energy and a strength of one excitation of a molecule",
    }[pair]
    return _pair("QM8", about, "qm8", pair, settings, learning_rate=RATE, **given)


def _assays(pair: tuple[str, str], settings: Settings, **given: Any) -> Experiment:
    about = {
        RECEPTOR: "homogeneous: two assays of what a molecule does to one receptor",
        STRESS: "heterogeneous: an assay of a receptor, and one of the cell's stress",
    }[pair]
    return _pair("Tox21", about, "tox21", pair, settings, **given)


def _census(settings: Settings, **given: Any) -> Experiment:
    about = "heterogeneous: what a person earns, and whether they ever married"
    return _pair("Census", about, "census", CENSUS, settings, **given)


def _rooms(pair: tuple[str, str], settings: Settings, **given: Any) -> Experiment:
    about = "heterogeneous: two maps of one room"
    return _pair("NYUv2", about, "nyuv2", pair, settings, learning_rate=ROOM_RATE, **given)


def _pair(of: str, about: str, problem: str, pair: tuple[str, str], settings: Settings, **given: Any) -> Experiment:
    return Experiment(f"{of} {' + '.join(pair)}", about, problem, ARMS, settings=settings, tasks=pair, **given)


def _few(**given: Any) -> Experiment:
    about = "a twentieth of the labels of the dearer method of quantum chemistry, all of the cheaper one's"
    name = "QM8, few E1-CC2 + E1-PBE0"
    given |= {"epoch_steps": STEPS_QM8, "learning_rate": RATE}
    return Experiment(name, about, "qm8", ARMS, settings=(FEW,), tasks=ALIKE, **given)


def judge(outcomes: Outcomes) -> list[Finding]:
    whole = "Sharing typically does not pay: it takes the right pair and the right weighting"
    each = "The opposite: every pair gains under every weighting, at the largest amount of labels that all pairs have"
    pairs = {name: outcome for name, outcome in outcomes.items() if _even(outcome)}
    beside = [_helped(outcomes[name]) for name in outcomes if name not in pairs]
    return [
        together(whole, [_typically(pairs), _pairs_matter(pairs), _weightings_matter(pairs)]),
        together(each, _by_pair(pairs)),
        *([_differ(pairs)] if pairs else []),
        *beside,
    ]


def _helped(outcome: Outcome) -> Finding:
    """Whether many labels of one task help another one with few."""
    few, many = sorted(outcome.plan.task_names, key=lambda task: outcome.plan.settings[0].fractions[task])
    asked = {arm: one_task(outcome.findings, few, arm, [SINGLE_TASK]) for arm in WEIGHTINGS}
    parts = [each_beaten(f"{arm}: {few} is better than alone", found) for arm, found in standings(asked).items()]
    return together(f"Beside the claim: many labels of {many} help {few}, which has few, under every weighting", parts)


def _typically(outcomes: Outcomes) -> Finding:
    """Does sharing improve less than half of the cases of a pair (amount, weighting, task), in the mean over pairs?

    By seed: the share of each pair counts once, however many amounts of labels it was trained at. Only where both tasks
    have as many: otherwise the task with fewer takes more steps together than alone. The verdicts cannot say it: most
    cases are too close for one, and are no gain all the same.
    """
    # `best-fixed` is left out: where it chose equal weights it is the plain sum once more.
    by_pair = {
        pair: [beside_alone(each.findings, arm, setting) for setting in _even(each).values() for arm in WEIGHTINGS]
        for pair, each in outcomes.items()
    }
    seeds = sorted(set.intersection(*(set(case) for cases in by_pair.values() for case in cases))) if by_pair else []
    of_pairs = [
        [np.mean(np.concatenate([case[seed] for case in cases]) > 0) for cases in by_pair.values()] for seed in seeds
    ]
    shares = np.array([np.mean(each) for each in of_pairs])
    # The smallest step of that mean: one case of the pair with the most.
    most = max((sum(len(case[seeds[0]]) for case in cases) for cases in by_pair.values()), default=1) if seeds else 1
    step = 1 / (most * max(len(by_pair), 1))
    below = above_zero({"half": 0.5 - shares}, step=step).words.get("half", "open")
    share = interval(shares, least=rounded_deviation(step))
    said = [] if share else ["No seed has finished on all pairs."]
    if share:
        planned = max(len(each.plan.seeds) for each in outcomes.values())
        of = f"{len(seeds)} of {planned}" if len(seeds) < planned else f"{planned}"
        said = [
            f"In the mean over {counted(len(by_pair), 'pair')} {100 * share.mean:.0f} % of a pair's cases improve "
            f"({_range(share)}, over {of} seeds).",
            _by(by_pair),
        ]
    claim = (
        "Sharing typically does not improve a task: in the mean over pairs less than half of a pair's cases (amount, "
        "weighting, task) improve"
    )
    return Finding(claim, WORDS[below], (*said, _counts(outcomes)), of_all=True)


def _by(pairs: Mapping[str, Sequence[Mapping[int, Array]]]) -> str:
    """``By pair, over all its seeds: Multi-MNIST 3 %, …``"""
    shares = {
        pair: np.mean(np.concatenate(values) > 0)
        for pair, cases in pairs.items()
        if (values := [value for case in cases for value in case.values()])
    }
    return f"By pair, over all its seeds: {', '.join(f'{pair} {100 * share:.0f} %' for pair, share in shares.items())}."


def _range(found: Interval) -> str:
    return f"{100 * max(found.low, 0.0):.0f} to {100 * min(found.high, 1.0):.0f} %"


def _counts(outcomes: Outcomes) -> str:
    """``Verdicts on 48 cases: 0 gain, …``"""
    words = Counter(
        cell.verdict
        for each in outcomes.values()
        for cell in each.judgement.cells
        if cell.verdict and cell.method in WEIGHTINGS and cell.setting in _even(each).values()
    )
    return (
        f"Verdicts on {counted(sum(words.values()), 'case')}: {words['gain']} gain, "
        f"{words['no difference']} no difference, {words['negative transfer']} negative transfer, "
        f"{words['undecided']} undecided."
    )


def _even(outcome: Outcome) -> dict[float, int]:
    """Amount of labels -> setting, where all tasks have as many."""
    shares = [set(setting.fractions.values()) for setting in outcome.plan.settings]
    return {share.pop(): place for place, share in enumerate(shares) if len(share) == 1}


def _places(outcomes: Outcomes) -> dict[str, int]:
    """Pair -> the setting with the largest amount that all pairs have: more labels must not pass for a better pair."""
    even = {pair: _even(each) for pair, each in outcomes.items()}
    amount = max(set.intersection(*map(set, even.values()))) if even else 1.0
    return {pair: settings[amount] for pair, settings in even.items()}


Beside = Literal["as good", "worse", "open"]
AS_GOOD = "less than a point of Δm worse than alone, or better"
AMOUNT = ", at the largest amount of labels that all pairs have"


def _beside(outcomes: Outcomes) -> dict[tuple[str, str], Beside]:
    """(pair, weighting) -> whether it is less than one point of Δm worse than alone, or more than that.

    One-sided t tests against that point, Holm-adjusted over both sides of all: both claims of a choice rest on them.
    """
    samples = _samples(outcomes)
    tested: dict[tuple[str, str, int], float] = {}
    for (pair, arm), sample in samples.items():
        for sign in (1, -1):
            p = not_worse(sign * np.asarray(sample), sign * REGION)
            if p is not None:
                tested[pair, arm, sign] = p
    shown = {key for key, p in holm(tested).items() if p <= 1.0 - LEVEL}
    return {key: "as good" if (*key, 1) in shown else "worse" if (*key, -1) in shown else "open" for key in samples}


def _samples(outcomes: Outcomes) -> dict[tuple[str, str], Array]:
    """(pair, weighting) -> Δm against alone by seed."""
    places = _places(outcomes)
    return {
        (pair, arm): each.findings.changes(arm, SINGLE_TASK, places[pair])
        for pair, each in outcomes.items()
        for arm in WEIGHTINGS
    }


def _pairs_matter(outcomes: Outcomes) -> Finding:
    """The same weighting is as good as alone on one pair, and worse on another."""
    beside, samples = _beside(outcomes), _samples(outcomes)
    by_arm = {arm: {pair: beside[pair, arm] for pair in outcomes} for arm in WEIGHTINGS}
    decide = {arm: words for arm, words in by_arm.items() if {"as good", "worse"} <= set(words.values())}
    found = [
        f"{arm}: {AS_GOOD} on {listed([pair for pair, word in words.items() if word == 'as good'])}; more than a point "
        f"worse on {listed([pair for pair, word in words.items() if word == 'worse'])}."
        for arm, words in decide.items()
    ]
    said = [f"{pair}: Δm {', '.join(_delta(samples, pair, arm, outcomes) for arm in WEIGHTINGS)}." for pair in outcomes]
    alike = len(outcomes) > 1 and all(set(words.values()) in ({"as good"}, {"worse"}) for words in by_arm.values())
    word: Word = "held" if decide else "did not hold" if alike else "undecided"
    claim = (
        "The choice of the pair decides: one weighting equals training alone on one pair, or exceeds it, and is worse "
        f"on another{AMOUNT}"
    )
    return Finding(claim, word, (*found, *said), of_all=True)


def _delta(samples: Mapping[tuple[str, str], Array], pair: str, arm: str, outcomes: Outcomes) -> str:
    """``uw +1.2 % (+0.3 to +2.1)``."""
    shown = interval(samples[pair, arm])
    few = of_seeds(samples[pair, arm], len(outcomes[pair].plan.seeds))
    return f"{arm} not finished" if shown is None else f"{relative_of({arm: shown})}{few}"


def _weightings_matter(outcomes: Outcomes) -> Finding:
    """On one pair, one weighting is as good as alone, and another is worse."""
    beside = _beside(outcomes)
    by_pair = {pair: {arm: beside[pair, arm] for arm in WEIGHTINGS} for pair in outcomes}
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
    return Finding(claim, word, tuple(said or [none]), of_all=True)


def _be(those: Sequence[str]) -> str:
    return "is" if len(those) == 1 else "are"


def _differ(outcomes: Outcomes) -> Finding:
    """Two weightings of one pair differ beyond chance, Holm-adjusted over all pairs of weightings and tasks."""
    samples, places = {}, _places(outcomes)
    for pair, each in outcomes.items():
        for one, other in combinations(WEIGHTINGS, 2):
            samples[f"{pair}, {one} against {other}"] = gains(each.findings, one, other, places[pair])
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


def _by_pair(outcomes: Outcomes) -> list[Finding]:
    """For every pair and weighting, whether all tasks together gain: all must, so that each is held by itself."""
    samples, places = _samples(outcomes), _places(outcomes)
    found = above_zero({f"{pair}, {arm}": sample for (pair, arm), sample in samples.items()})
    findings = []
    for pair, arm in samples:
        name, amount = f"{pair}, {arm}", outcomes[pair].plan.settings[places[pair]].label
        claim = f"{pair}, {amount} of the labels: {arm} beats single-task learning"
        if name not in found.intervals:
            findings.append(Finding(claim, "undecided"))
            continue
        word, doubt = WORDS[found.words[name]], found.doubt(name)
        if word == "undecided" and found.alone[name] == "better":
            word, doubt = "held", f" {BY_ITSELF}"
        findings.append(Finding(claim, word, (f"Δm of {_delta(samples, pair, arm, outcomes)}.{doubt}",)))
    return findings


reproduction = Reproduction(
    name="comparison",
    title="when does sharing pay, and with which weighting",
    paper=(
        'Gong, Lee, Stephenson, Renduchintala, Padhy, Ndirango, Keskin, Elibol, "A Comparison of Loss Weighting '
        'Strategies for Multi task Learning in Deep Neural Networks", IEEE Access 7, 2019.'
    ),
    claim=(
        "Multi-task learning typically does not improve a combination of tasks that the user chose: it takes a "
        "careful choice of both the pair of tasks and the weighting to equal training them alone, or exceed it."
    ),
    reconstructed=(
        "Only the abstract and the construction of Multi-MNIST were at hand: amounts of data, epochs, the other pairs "
        "and what is taken for a choice that decides (a weighting that is as good as training alone, within one point "
        "of Δm, on one pair and more than a point worse on another; on one pair one weighting that is the former and "
        "one that is the latter) are ours, and there are no figures of the paper to print beside ours. Where amounts "
        "are unequal, the task with fewer labels takes more steps together than alone, as an epoch is all rows with "
        "any label."
    ),
    experiments=experiments,
    judge=judge,
    takes={"quick": "7 min", "real": "5 h", "full": "days"},
    scope={
        "quick": "2 and 10 % of the labels, equal and unequal between the two digits; two further pairs of "
        "digits; three seeds, six epochs of 40 steps or more.",
        "real": "four equal and two unequal amounts on Multi-MNIST, until four epochs of 98 steps or more are no "
        "better; seven further pairs at a quarter of their labels, until eight are; few labels of one energy beside "
        "many of a like one; five seeds, three learning rates for every network, chosen on three seeds.",
        "full": "all 36 combinations of six amounts, six amounts elsewhere, three pairs of NYUv2 as well; 100 epochs, "
        "three learning rates for every network, chosen on three seeds.",
    },
)
