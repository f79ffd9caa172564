"""What validation data choose before a study starts: constant weights for ``best-fixed``, and learning rates.

Every network gets the same number of learning rates, log-spaced around the study's own, and one more past an edge as
long as the outermost is the best, where a study asks for that; on seeds that the study does not use; its test data are
not looked at. (With cross-validation, the rows that validate there are test rows of other seeds: of as many seeds as
there are folds, as many as choose are tested on rows that helped to choose.) The trials are ordinary ones, kept in the
store as all others are.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from steelyard.errors import PlanError
from steelyard.study.planning.plan import Choice, Plan, PlannedMethod, PlannedTask, Tuning, network_name
from steelyard.study.trial import Result, Trial

SEED = 10_007
STEP = math.sqrt(10)  # between neighbouring learning rates
MOST_RATES = 25  # twelve powers of ten
MOST_BEYOND = 12


def learning_rates(own: float, count: int) -> tuple[float, ...]:
    """So many rates, each √10 times the next: the nearest to `own` first, the lower of two first."""
    if not (count == 0 or 2 <= count <= MOST_RATES):
        raise PlanError(f"tune={count}: from 2 to {MOST_RATES} learning rates, or 0 to leave them as they are")
    powers = sorted(range(-(count // 2), (count + 1) // 2), key=lambda power: (abs(power), power))
    return tuple(own if power == 0 else _rounded(own * STEP**power) for power in powers)


def _rounded(rate: float) -> float:
    """To three digits, or to one where half a percent is enough: 0.00316 / √10 is 0.001, not 0.000999.

    A range that is moved by a step then shares its rates with the one before, and their trials.
    """
    short = float(f"{rate:.1g}")
    return short if abs(short - rate) <= rate / 200 else float(f"{rate:.3g}")


def outermost(rates: Sequence[float], steps: int, largest: bool) -> float:
    """The largest (or smallest) rate after so many steps past the edge of these."""
    rate = max(rates) if largest else min(rates)
    for _ in range(steps):
        rate = _rounded(rate * STEP if largest else rate / STEP)
    return rate


def make_tuning(
    own: float, count: int, methods: Iterable[PlannedMethod], seeds: Sequence[int], among: int = 1, beyond: int = 0
) -> Tuning | None:
    """What has to be chosen, on so many seeds; None where nothing has."""
    rates = learning_rates(own, count) if count else ()
    if not 0 <= beyond <= MOST_BEYOND:
        raise PlanError(f"tune_beyond={beyond}: from 0 to {MOST_BEYOND} learning rates past an edge of those tried")
    if beyond and not rates:
        raise PlanError(f"tune_beyond={beyond} goes past the learning rates of tune=, which tries none: give tune=3")
    if not rates and not any(method.candidates for method in methods):
        if among != 1:
            raise PlanError(f"tune_seeds={among}: nothing is tuned. Give tune=3, or leave tune_seeds away")
        return None
    used = [SEED + place for place in range(among)]
    for seed in used:
        if seed in seeds:
            raise PlanError(f"seed {seed} is the one that tuning uses: choose another for the study")
    return Tuning(rates, SEED, tuple(used[1:]), beyond)


@dataclass(frozen=True)
class Attempt:
    """One thing tried for one network of one arm in one setting."""

    arm: str
    setting: int
    tasks: tuple[str, ...]
    method: str
    learning_rate: float | None
    trial: Trial


def rounds(plan: Plan) -> range:
    """The rounds of choices, each building on the one before."""
    return range(2 + plan.tuning.beyond) if plan.tuning is not None else range(0)


def attempts(plan: Plan, place: int) -> list[Attempt]:
    """What is tried in a round: first constant weights, at the study's own learning rate; then all learning rates; then
    the next rate past an edge, beside that edge, for each network whose best is there.

    The second round trains what the first one chose.
    """
    if plan.tuning is None:
        return []
    return [
        Attempt(method.name, setting, tasks, each, rate, plan.trial(method.name, each, tasks, setting, seed, rate))
        for setting in range(len(plan.settings))
        for method in plan.methods
        for tasks in plan.networks(method.name)
        for each, rate in _tried_in(plan, plan.tuning, place, method, setting, tasks)
        for seed in plan.tuning.seeds
    ]


def _tried_in(
    plan: Plan, tuning: Tuning, place: int, method: PlannedMethod, setting: int, tasks: tuple[str, ...]
) -> list[tuple[str, float | None]]:
    """What one network tries in a round: constant weights or what was chosen of them, and at which rates."""
    if place == 0:
        return [(candidate, None) for candidate in method.candidates]
    choice = method.choice(setting)
    if place == 1:
        return [(choice.method, rate) for rate in tuning.rates]
    chosen, steps = choice.learning_rates.get(network_name(tasks, method)), place - 2
    if chosen is None:  # not yet
        return []
    # What lies further out than this edge has gone past it: in a plan whose later rounds are closed.
    for largest in (True, False):
        edge = outermost(tuning.rates, steps, largest)
        if chosen >= edge if largest else chosen <= edge:
            return [(choice.method, edge), (choice.method, outermost(tuning.rates, steps + 1, largest))]
    return []


def tried(plan: Plan) -> list[Trial]:
    """The trials of all rounds, each once; with the weights and rates that the plan has chosen so far."""
    return list(dict.fromkeys(each.trial for place in rounds(plan) for each in attempts(plan, place)))


def settle(plan: Plan, results_of: Callable[[Iterable[Trial]], Mapping[Trial, Result]]) -> Plan:
    """The plan with what finished trials can choose: the rounds up to the first that cannot be closed yet."""
    for place in rounds(plan):
        made = attempts(plan, place)
        trials = list(dict.fromkeys(each.trial for each in made))
        results = results_of(trials)
        if len(results) < len(trials):
            break
        plan = choose(plan, made, results)
    return plan


def choose(plan: Plan, tried: Sequence[Attempt], results: Mapping[Trial, Result]) -> Plan:
    """The plan with the best attempt of every network written in; the first attempt where all failed."""
    groups: dict[tuple[str, int, tuple[str, ...]], list[Attempt]] = {}
    for each in tried:
        groups.setdefault((each.arm, each.setting, each.tasks), []).append(each)
    best = {group: _best(plan, members, results) for group, members in groups.items()}
    methods = []
    for method in plan.methods:
        choices = []
        for setting in range(len(plan.settings)):
            choice = method.choice(setting)
            for tasks in plan.networks(method.name):
                found = best.get((method.name, setting, tasks))
                if found is not None:
                    rate = {} if found.learning_rate is None else {network_name(tasks, method): found.learning_rate}
                    choice = Choice(found.method, {**choice.learning_rates, **rate})
            choices.append(choice)
        touched = any(group[0] == method.name for group in groups)
        methods.append(dataclasses.replace(method, chosen=tuple(choices)) if touched else method)
    return dataclasses.replace(plan, methods=tuple(methods))


def _best(plan: Plan, members: Sequence[Attempt], results: Mapping[Trial, Result]) -> Attempt:
    """The attempt of the smallest validation error; the first one where all failed or several are equal.

    With several seeds, of what finished on all of them (or on the most) the one with the smallest mean over seeds.
    """
    tried: dict[tuple[str, float | None], list[Attempt]] = {}
    for each in members:
        if each.trial in results:
            tried.setdefault((each.method, each.learning_rate), []).append(each)
    if not tried:
        return members[0]
    most = max(map(len, tried.values()))
    whole = [those for those in tried.values() if len(those) == most]
    totals = [0.0] * len(whole)
    for seed in sorted({each.trial.seed for those in whole for each in those}):
        here = [(place, each) for place, those in enumerate(whole) for each in those if each.trial.seed == seed]
        scores = validation_scores(deciding(plan, members[0].tasks), [results[each.trial] for _, each in here])
        for (place, _), score in zip(here, scores, strict=True):
            totals[place] += score
    return whole[min(range(len(whole)), key=totals.__getitem__)][0]


def deciding(plan: Plan, names: Sequence[str]) -> list[PlannedTask]:
    """The tasks by which a network that learns these is chosen: the main one alone where it is among them."""
    tasks = [task for task in plan.tasks if task.name in names]
    return [task for task in tasks if task.name == plan.main] or tasks


def validation_scores(tasks: Sequence[PlannedTask], results: Sequence[Result]) -> list[float]:
    """Of each result the mean over tasks of the log error of the main metric, at the epoch that it chose; low is good.

    An error of exactly zero counts as half of the smallest other one: it should not outweigh all other tasks. Where a
    metric without an ideal has a value that has no logarithm (the last epoch is taken whatever it is), scores are the
    mean over tasks of the place among these results.
    """
    scores = [0.0] * len(results)
    values = [[result.curves.validation[task.name][result.chosen_epoch - 1] for result in results] for task in tasks]
    if any(task.metrics[0].ideal is None and min(of, default=1) <= 0 for task, of in zip(tasks, values, strict=True)):
        places = [_places(task, of) for task, of in zip(tasks, values, strict=True)]
        return [statistics.fmean(those) for those in zip(*places, strict=True)]
    for task, of in zip(tasks, values, strict=True):
        errors = [_error(task, value) for value in of]
        smallest = min((error for error in errors if error > 0), default=1.0)
        for place, error in enumerate(errors):
            scores[place] += math.log(error or smallest / 2) / len(tasks)
    return scores


def _places(task: PlannedTask, values: Sequence[float]) -> list[int]:
    """Of each value by how many others it is beaten; one that is no number by all."""
    metric = task.metrics[0]
    ideal = metric.ideal
    off = [abs(ideal - v) if ideal is not None else -v if metric.higher_is_better else v for v in values]
    off = [math.inf if math.isnan(each) else each for each in off]
    return [sum(other < each for other in off) for each in off]


def _error(task: PlannedTask, value: float) -> float:
    metric = task.metrics[0]
    if metric.ideal is not None:
        return abs(metric.ideal - value)
    return 1 / value if metric.higher_is_better else value
