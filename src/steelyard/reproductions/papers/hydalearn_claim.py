"""``hydalearn``: weights per mini-batch from what each task's own step would gain for the main task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from steelyard.base.specs import parse_spec
from steelyard.reproductions.evidence import (
    REGION,
    Comparison,
    Standings,
    arms_of,
    better_than_each,
    by_itself,
    each_beaten,
    one_task,
    relative_gain,
    standings,
    together,
)
from steelyard.reproductions.reproduction import Experiment, Finding, Outcome, Outcomes, Reproduction, Size, Word
from steelyard.study.storage.short_curves import check_whole
from steelyard.study.trial import SINGLE_TASK

BASELINES = ("single-task", "equal", "best-fixed", "uw", "dwa", "gradnorm", "gcs", "ol-aux")
ARMS = ",".join((*BASELINES, "hydalearn", "hydalearn(mode=first-order)"))
TO_BEAT = ("single-task", "equal", "best-fixed")
CREDIT, CENSUS = "Credit default", "Census"
ALL = ", all main labels"
LATE = 0.25  # of the epochs, for "late in training"
CLAIMS, PERMUTATIONS = 2, 9999  # claims about dials, for which p is adjusted; orders tried, where not all

# Labels of the main task are few, or training it alone would leave an auxiliary nothing to add. Batches are so large
# that none comes without one, and epochs of the main task alone have as many steps as those of all rows. Rates lie in
# the middle of what validation chooses.
LOANS = Experiment(
    CREDIT,
    "will a borrower default, helped by the interest and the grade of the loan",
    "credit-default",
    ARMS,
    settings=({"default": 0.1},),
    batch_size=256,
    epoch_steps=69,
    learning_rate=0.00316,
)
PEOPLE = Experiment(
    CENSUS,
    "income above $50,000, helped by marital state and degree",
    "census",
    ARMS,
    epochs=5,
    settings=({"income": 0.05},),
    epoch_steps=117,
)


def dials(drift: float, spread: float) -> str:
    return f"Synthetic, drift {drift:g}, spread {spread:g}"


CONTROL = dials(0.0, 0.0)  # where relevance neither drifts nor differs, constant weights are right


def experiments(size: Size) -> tuple[Experiment, ...]:
    places = [(drift, spread) for drift in (0.0, 1.0) for spread in (0.0, 2.0)]
    if size == "full":
        places = [(drift, spread) for drift in (0.0, 0.5, 1.0) for spread in (0.0, 1.0, 2.0)]
    studies = [*(_synthetic(*at) for at in places), LOANS, PEOPLE]
    if size == "quick":
        studies = [replace(each, epochs=4) for each in studies]
    else:
        seeds, tune = (5, 3) if size == "real" else (10, 5)
        studies = [replace(each, seeds=seeds, tune=tune, tune_seeds=3, tune_beyond=2) for each in studies]
    # What there is to gain stands beside what was gained; the largest problem comes last.
    beside = [(_with_all_labels(each), each) if each.name in (CONTROL, CREDIT, CENSUS) else (each,) for each in studies]
    return tuple(study for pair in beside for study in pair)


def _synthetic(drift: float, spread: float) -> Experiment:
    fades, differs = "loses relevance" if drift else "stays relevant", "differs" if spread else "does not differ"
    return Experiment(
        dials(drift, spread),
        f"an auxiliary that {fades} as training goes on, and {differs} from batch to batch",
        f"synthetic-auxiliary(drift={drift},spread={spread})",
        ARMS,
        epochs=40,
        settings=({"main": 0.125},),
        batch_size=128,
        epoch_steps=32,
        learning_rate=0.01,
    )


def _with_all_labels(study: Experiment) -> Experiment:
    """The same three arms that every study has, at the middle rate: what there is to gain."""
    about = "all labels of the main task: what there is to gain"
    return replace(
        study,
        name=study.name + ALL,
        about=about,
        methods=",".join(TO_BEAT),
        settings=(1.0,),
        tune=0,
        tune_seeds=1,
        tune_beyond=0,
    )


def judge(outcomes: Outcomes) -> list[Finding]:
    places = {name: each for name, each in outcomes.items() if name != CONTROL and not name.endswith(ALL)}
    whole = "HydaLearn's weights follow the auxiliary's relevance, and serve the main task better than constant ones"
    beats = "HydaLearn beats single-task learning, the plain sum and the best constant weights on the main task"
    first_order = "The first-order form beats the same three on the main task"
    still = f"Control (constant weights are right), {CONTROL}"
    beside = _gains({still: outcomes[CONTROL]} if CONTROL in outcomes else {}, _exact)
    return [
        together(whole, [*_follow(outcomes), together(beats, _gains(places, _exact))]),
        together(first_order, _gains(places, _first_order)),
        *beside,
        *_premise(outcomes),
    ]


def _premise(outcomes: Outcomes) -> list[Finding]:
    """Is there anything to gain: does the main task alone do better with all of its labels than with the few it has?"""
    asked = {
        name: more_labels(outcomes[name + ALL], outcomes[name])
        for name in (CONTROL, CREDIT, CENSUS)
        if name in outcomes and name + ALL in outcomes
    }
    parts = [
        each_beaten(f"{name}: the main task alone does better with all of its labels", found)
        for name, found in standings(asked).items()
    ]
    return [together("There is something to gain: labels of the main task are few", parts)] if parts else []


def more_labels(every: Outcome, few: Outcome) -> Comparison:
    """Single-task learning of the main task with all labels against a few, by seed, relative to the error with few."""
    main = next(task for task in few.plan.tasks if task.name == few.plan.main)
    alone = [each.findings.metrics(SINGLE_TASK, 0, main.name) for each in (every, few)]
    seeds = sorted(set(alone[0]) & set(alone[1]))
    ours, theirs = (np.array([by_seed[seed][0] for seed in seeds]) for by_seed in alone)
    sample = {"few labels": relative_gain(main, ours, theirs)}
    return Comparison("all labels", sample, {"few labels": REGION}, seeds=len(few.plan.seeds))


def _exact(outcome: Outcome) -> str:
    """Its name in the plan, which says the main task as well."""
    return next(arm for arm in _ours(outcome) if arm != _first_order(outcome))


def _first_order(outcome: Outcome) -> str:
    return next(arm for arm in _ours(outcome) if "first-order" in arm)


def _ours(outcome: Outcome) -> list[str]:
    return [arm for arm in arms_of(outcome) if arm.startswith("hydalearn")]


def _gains(outcomes: Outcomes, form: Callable[[Outcome], str]) -> list[Finding]:
    """One arm on the main task, place by place: against the three that the claim is about, and, adjusted apart, others.

    All three at all places must be beaten, each by itself (an intersection-union test); what breaks the claim, one that
    is as good or better, is adjusted over all places.
    """
    three, others = {}, {}
    for name, each in outcomes.items():
        rest = [other for other in each.judgement.methods if other not in (*TO_BEAT, *_ours(each))]
        assert each.plan.main is not None
        three[name], others[name] = (
            one_task(each.findings, each.plan.main, form(each), those) for those in (TO_BEAT, rest)
        )
    found, beside = standings(three), standings(others)
    return [_gain(name, each, found[name], beside[name]) for name, each in outcomes.items()]


def _gain(name: str, outcome: Outcome, found: Standings, beside: Standings) -> Finding:
    word: Word = "did not hold" if found.those("equal") else better_than_each(found)
    claim = f"{name}: {found.of.arm} beats {', '.join(TO_BEAT)} on {outcome.plan.main}"
    return Finding(claim, word, (f"{found.text}.{by_itself(found, word)}", f"Beside the claim: {beside.text}."))


def _follow(outcomes: Outcomes) -> list[Finding]:
    """Late in training the auxiliary weighs less, the more its relevance drifts away; and varies with the spread."""
    drift = {float(option): outcomes[name] for option, name in _turned(outcomes, "drift")}
    late = {dial: values for dial, each in drift.items() if (values := _late_ratios(each))}
    spread = {float(option): outcomes[name] for option, name in _turned(outcomes, "spread")}
    varied = {dial: values for dial, each in spread.items() if (values := _deviations(each))}
    return [
        *_ranked("The auxiliary's late weight falls as its relevance drifts away", "drift", late, -1, _rates(drift)),
        *_ranked(
            "Its weight varies the more from batch to batch, the more its relevance does",
            "spread",
            varied,
            1,
            _rates(spread),
        ),
    ]


def _rates(by_dial: Mapping[float, Outcome]) -> tuple[str, ...]:
    """Which learning rate each dial's networks were trained at, for it has a say in the weights too."""
    chosen = {}
    for dial, outcome in by_dial.items():
        (planned,) = (method for method in outcome.plan.methods if method.name == _exact(outcome))
        if planned.chosen:
            (chosen[dial],) = planned.chosen[0].learning_rates.values()
    rates = ", ".join(f"{rate:g} at {dial:g}" for dial, rate in chosen.items())
    return (f"Learning rates, as validation chose them: {rates}.",) if rates else ()


def _turned(outcomes: Outcomes, dial: str) -> list[tuple[float, str]]:
    """The synthetic studies in which only this dial is turned."""
    other = "spread" if dial == "drift" else "drift"
    found = []
    for name, outcome in outcomes.items():
        if not name.startswith("Synthetic") or name.endswith(ALL):
            continue
        options = {"drift": 1.0, "spread": 2.0, **parse_spec(outcome.experiment.problem).options}
        if options[other] == 0:
            found.append((float(str(options[dial])), name))
    return sorted(found)


def _late_ratios(outcome: Outcome) -> list[float]:
    """By seed, the auxiliary's weight beside the main one's over the last quarter of the epochs."""
    ratios = []
    for results in outcome.findings.complete(_exact(outcome), 0).values():
        check_whole(results[0], "how weights moved is what this claim is about")
        weights = results[0].curves.weights
        main, auxiliary = (weights[task] for task in ("main", "auxiliary"))
        last = max(1, round(LATE * len(main)))
        ratios.append(sum(a / m for a, m in zip(auxiliary[-last:], main[-last:], strict=True)) / last)
    return ratios


def _deviations(outcome: Outcome) -> list[float]:
    """By seed, the deviation of the auxiliary's weight from step to step within an epoch, the first epoch left out."""
    found = []
    for results in outcome.findings.complete(_exact(outcome), 0).values():
        spreads = results[0].curves.weight_spreads.get("auxiliary", [])[1:]
        if spreads:
            found.append(sum(spreads) / len(spreads))
    return found


def _standardised(values: np.ndarray) -> np.ndarray:
    """With mean zero and norm one."""
    centred = values - values.mean()
    standardised: np.ndarray = centred / np.linalg.norm(centred)
    return standardised


def _ranked(
    claim: str, dial: str, found: Mapping[float, Sequence[float]], sign: int, said: Sequence[str] = ()
) -> list[Finding]:
    """Spearman's rank correlation of a dial with what was measured, over all seeds; p by permutation."""
    if len(found) < 2:
        return []
    from scipy import stats

    pairs = [(at, value) for at, values in found.items() for value in values if math.isfinite(value)]
    if len({at for at, _ in pairs}) < 2 or len({value for _, value in pairs}) < 2:
        undefined = f"Nothing varies here with {dial}: a rank correlation is not defined."
        return [Finding(claim, "undecided", (undefined, *said), of_all=True)]
    turned = [at for at, _ in pairs]
    # Spearman's is Pearson's of the ranks, and another order of the runs is one of their ranks: they are taken once.
    dials, ranks = (_standardised(stats.rankdata(each)) for each in zip(*pairs, strict=True))
    # Exact for up to seven runs, where the usual approximation promises what so few cannot show.
    shown = stats.permutation_test(
        (ranks,),
        lambda values, axis: (dials * values).sum(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        random_state=0,
    )
    p = min(1.0, CLAIMS * shown.pvalue)
    word: Word = "undecided"
    if p <= 0.05:
        word = "held" if sign * shown.statistic > 0 else "did not hold"
    means = ", ".join(f"{sum(values) / len(values):.3g} at {at:g}" for at, values in found.items())
    text = (
        f"Spearman's rank correlation with {dial} {shown.statistic:+.2f} (p = {p:.2g} by permutation, adjusted for "
        f"both dials; {len(pairs)} runs): {means}."
    )
    # Of all orders, those that rank the dials perfectly, either way.
    alike = math.prod(math.factorial(number) for number in Counter(turned).values())
    least = min(1.0, CLAIMS * 2 * alike / math.factorial(len(pairs)))
    few = (f"So few runs cannot decide it, whatever they show (p of {least:.2g} at best).",) if least > 0.05 else ()
    return [Finding(claim, word, (text.replace("-", "−"), *few, *said), of_all=True)]


reproduction = Reproduction(
    name="hydalearn",
    title="weights per mini-batch from the gain for the main task",
    paper=(
        'Verboven, Chaudhary, Berrevoets, Ginis, Verbeke, "HydaLearn: Highly Dynamic Task Weighting for Multi-task '
        'Learning with Auxiliary Tasks", Applied Intelligence 2023, arXiv 2008.11643.'
    ),
    claim=(
        "Constant weights fail because an auxiliary's relevance drifts during training and differs between "
        "mini-batches; weights from the main-task gain of each task's own update follow both, and improve the "
        "main task on synthetic "
        "data and on real ones."
    ),
    reconstructed=(
        "Only the abstract was at hand: the ratio rule is from there; its guards, the step that is looked ahead (of "
        "SGD at the network's rate, also where the network steps by Adam), the synthetic generator, the real problems "
        "(loans for the paper's credit data, the census for its other domain), how few labels the main tasks have and "
        "that a gain is one of more than 1 % of the error are ours, and there are no figures of the paper to print "
        "beside ours. Methods that read gradients, the first-order form among them, read them at features, "
        "where those of different rows do not meet: there the first-order form is a cheap relative of the exact one, "
        "and not its limit."
    ),
    experiments=experiments,
    judge=judge,
    takes={"quick": "4 min", "real": "40 min", "full": "8 h"},
    scope={
        "quick": "three seeds, four epochs, no tuned rates.",
        "real": "four places of the dials with an eighth of the main task's labels, both real problems with a tenth "
        "and a twentieth of them; five seeds, three rates for every network, chosen on three seeds.",
        "full": "nine places, ten seeds and five learning rates; the loans stand for the paper's credit data.",
    },
)
