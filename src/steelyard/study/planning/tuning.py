"""What validation data choose before a study starts: constant weights for ``best-fixed``, and learning rates.

Every network gets the same number of learning rates, log-spaced around the study's own, on seeds that the study does
not use; its test data are not looked at. (With cross-validation, the rows that validate there are test rows of another
seed: of as many seeds as there are folds, one is tested on rows that helped to choose.) The trials are ordinary ones,
kept in the store as all others are.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from steelyard.errors import PlanError
from steelyard.study.planning.plan import Choice, Plan, PlannedMethod, PlannedTask, Tuning, network_name
from steelyard.study.trial import Result, Trial

SEED = 10_007
STEP = math.sqrt(10)  # between neighbouring learning rates
MOST_RATES = 25  # twelve powers of ten
ROUNDS = 2  # of choices, each building on the one before


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


def make_tuning(
    own: float, count: int, methods: Iterable[PlannedMethod], seeds: Sequence[int], among: int = 1
) -> Tuning | None:
    """What has to be chosen, on so many seeds; None where nothing has."""
    rates = learning_rates(own, count) if count else ()
    if not rates and not any(method.candidates for method in methods):
        return None
    used = [SEED + place for place in range(among)]
    for seed in used:
        if seed in seeds:
            raise PlanError(f"seed {seed} is the one that tuning uses: choose another for the study")
    return Tuning(rates, SEED, tuple(used[1:]))


@dataclass(frozen=True)
class Attempt:
    """One thing tried for one network of one arm in one setting."""

    arm: str
    setting: int
    tasks: tuple[str, ...]
    method: str
    learning_rate: float | None
    trial: Trial


def attempts(plan: Plan, place: int) -> list[Attempt]:
    """What is tried in a round: first constant weights, at the study's own learning rate; then all learning rates.

    The second round trains what the first one chose.
    """
    if plan.tuning is None:
        return []
    return _weights(plan, plan.tuning) if place == 0 else _rates(plan, plan.tuning)


def tried(plan: Plan) -> list[Trial]:
    """The trials of all rounds, each once; of rates, with the weights that the plan has chosen so far."""
    return list(dict.fromkeys(each.trial for place in range(ROUNDS) for each in attempts(plan, place)))


def settle(plan: Plan, results_of: Callable[[Iterable[Trial]], Mapping[Trial, Result]]) -> Plan:
    """The plan with what finished trials can choose: the rounds up to the first that cannot be closed yet."""
    for place in range(ROUNDS):
        made = attempts(plan, place)
        trials = list(dict.fromkeys(each.trial for each in made))
        results = results_of(trials)
        if len(results) < len(trials):
            break
        plan = choose(plan, made, results)
    return plan


def _weights(plan: Plan, tuning: Tuning) -> list[Attempt]:
    return [
        Attempt(
            method.name,
            setting,
            tasks,
            candidate,
            None,
            plan.trial(method.name, candidate, tasks, setting, seed),
        )
        for setting in range(len(plan.settings))
        for method in plan.methods
        for tasks in plan.networks(method.name)
        for candidate in method.candidates
        for seed in tuning.seeds
    ]


def _rates(plan: Plan, tuning: Tuning) -> list[Attempt]:
    found = []
    for setting in range(len(plan.settings)):
        for method in plan.methods:
            chosen = method.choice(setting).method
            for tasks in plan.networks(method.name):
                for rate, seed in itertools.product(tuning.rates, tuning.seeds):
                    trial = plan.trial(method.name, chosen, tasks, setting, seed, rate)
                    found.append(Attempt(method.name, setting, tasks, chosen, rate, trial))
    return found


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

    An error of exactly zero counts as half of the smallest other one: it should not outweigh all other tasks.
    """
    scores = [0.0] * len(results)
    for task in tasks:
        errors = [_error(task, result.curves.validation[task.name][result.chosen_epoch - 1]) for result in results]
        smallest = min((error for error in errors if error > 0), default=1.0)
        for place, error in enumerate(errors):
            scores[place] += math.log(error or smallest / 2) / len(tasks)
    return scores


def _error(task: PlannedTask, value: float) -> float:
    metric = task.metrics[0]
    if metric.ideal is not None:
        return abs(metric.ideal - value)
    return 1 / value if metric.higher_is_better else value
