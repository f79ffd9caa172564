"""Seeds that were added after a look: a study that grows until it decides something has had more than one chance."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from scipy import special

from steelyard.errors import DamagedStoreError
from steelyard.study.analysis.statistics import LEVEL
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import canonical

DRAWN = 200_000  # studies, for a rate that is told in whole per cent
ABOUT_THE_RUN = ("created", "command", "machine", "hardware", "versions", "notes")  # not about what a plan asks


@dataclass(frozen=True)
class EarlierLooks:
    """Plans that were done before a plan was made, and compared some of its arms on some of its seeds."""

    seeds: tuple[int, ...] = ()  # how many they had, each more than the one before, whose seeds are among its own
    arms: int = 0  # of this plan, that any of them had


def look_note(plan: Plan, looks: EarlierLooks) -> list[str]:
    """What a report says of a plan some of whose seeds were judged before."""
    if not looks.seeds:
        return []
    arms = f", under {looks.arms} of {len(plan.methods)} arms" if looks.arms < len(plan.methods) else ""
    false = false_after([*looks.seeds, len(plan.seeds)])
    return [
        f"{looks.seeds[-1]} of these {len(plan.seeds)} seeds were judged before{arms}. Unless their number was fixed "
        "beforehand this is another look: who adds seeds where a study decides nothing is told something false in "
        f"about {100 * false:.0f} of 100 studies with nothing there, at one look or another, in place of "
        f"{100 * (1 - LEVEL):.0f}"
    ]


def earlier_looks(plan: Plan, store: Store) -> EarlierLooks:
    """The looks that the store knows of; none where something in it cannot be read, which is no reason for no report.

    A look is a plan that was done before this one was first made and has at least two of its seeds and of its arms,
    with the same trials. Where their seeds do not grow, each around the one before, they were brought together from
    several places, and were not added after a look.
    """
    try:
        return _looks(plan, store)
    except DamagedStoreError:
        return EarlierLooks()


def _looks(plan: Plan, store: Store) -> EarlierLooks:
    arm_of = {key: arm for arm, keys in _keys(plan) for key in keys}
    mine, made = frozenset(plan.seeds), _time(plan)
    earlier: list[tuple[frozenset[int], Plan, set[str]]] = []
    for content in _asked(store.plans()):
        if content.get("problem") != plan.problem:
            continue
        found = Plan.from_dict(content)
        if not mine.issuperset(found.seeds):
            continue
        arms = {arm_of[key] for _, keys in _keys(found) for key in keys if key in arm_of}
        if len(arms) < 2:
            continue
        if set(found.seeds) == mine:
            made = min(made, _time(found))  # given again, it is no new plan
        elif len(found.seeds) > 1:  # of one seed there is no interval
            earlier.append((frozenset(found.seeds), found, arms))
    looks: dict[frozenset[int], set[str]] = {}
    for seeds, found, arms in earlier:
        if _time(found) < made and _done(found, store, made):
            looks.setdefault(seeds, set()).update(arms)
    growing = sorted(looks, key=len)
    if any(not few < many for few, many in itertools.pairwise(growing)):
        return EarlierLooks()
    return EarlierLooks(tuple(map(len, growing)), len(set().union(*looks.values())))


def _asked(plans: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each plan that was asked once, as it was made first: the command of a study may be given many times."""
    first = {}
    for content in plans:  # the latest first
        asks = {name: value for name, value in content.items() if name not in ABOUT_THE_RUN}
        first[canonical(asks)] = content
    yield from first.values()


def _keys(plan: Plan) -> Iterator[tuple[str, set[str]]]:
    """Of each arm its trials, as a store names them, with every origin that the plan takes."""
    for method in plan.methods:
        trials = [
            trial
            for setting in range(len(plan.settings))
            for seed in plan.seeds
            for trial in plan.trials_of(method.name, setting, seed)
        ]
        origins = [[trial, *(dataclasses.replace(trial, problem=other) for other in plan.also)] for trial in trials]
        yield method.name, {trial.key for each in origins for trial in each}


def _time(plan: Plan) -> float:
    return datetime.fromisoformat(plan.created).timestamp()


def _done(plan: Plan, store: Store, by: float) -> bool:
    """All of its trials had ended by then; when one failed is not known."""
    trials = plan.trials
    trained, failed = store.trained(trials, plan.also), store.failures(trials)
    return all(trial in failed or (trial in trained and trained[trial].written <= by) for trial in trials)


def false_after(looks: Sequence[int], questions: int = 1) -> float:
    """How often something is significant at one look or another, where nothing is there.

    Args:
        looks: numbers of seeds that grow, each look at all that there are by then.
        questions: of a study, independent ones, by t tests of normal values with a family-wise error of 5 %.
    """
    random = np.random.default_rng(1)
    shape = (DRAWN // questions, questions)
    count, total, squares = 0, np.zeros(shape), np.zeros(shape)
    decided = np.zeros(shape[0], dtype=bool)
    for seeds in looks:
        new = seeds - count
        added = random.standard_normal(shape) * new**0.5
        around = random.chisquare(new - 1, shape) if new > 1 else 0.0
        count, total, squares = seeds, total + added, squares + around + added**2 / new
        deviation = np.sqrt((squares - total**2 / count) / (count - 1))
        p_values = 2 * special.stdtr(count - 1, -np.abs(total) / count**0.5 / deviation)
        decided |= (p_values < (1 - LEVEL) / questions).any(1)
    return float(decided.mean())
