"""Which trained networks stay beside the store."""

from __future__ import annotations

from typing import Literal, get_args

from steelyard.errors import UnknownNameError
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.tuning import deciding, validation_scores
from steelyard.study.storage.store import Store
from steelyard.study.trial import Result, Trial

Keep = Literal["best", "all", "none"]
Group = tuple[str, int, tuple[str, ...]]
"""The trials of one network of one method in one setting, a seed each."""


def check_keep(keep: str) -> Keep:
    """The same, if it is one of them."""
    for known in get_args(Keep):
        if keep == known:
            found: Keep = known
            return found
    raise UnknownNameError("value of keep", keep, get_args(Keep))


class Keeper:
    """Keeps the networks of a plan: all, or of each group the seed that is best on validation data.

    Those that an earlier study has kept are left alone, but for the ones that a better seed takes the place of.
    """

    def __init__(self, plan: Plan, store: Store, keep: str) -> None:
        self.plan, self.networks, self.keep = plan, store.networks, keep
        self.networks.tidy()
        self.groups: dict[Group, list[Trial]] = {}
        self.groups_of: dict[Trial, list[Group]] = {}
        for setting in range(len(plan.settings)):
            for method in plan.methods:
                for seed in plan.seeds:
                    for trial in plan.trials_of(method.name, setting, seed):
                        group = method.name, setting, trial.tasks
                        self.groups.setdefault(group, []).append(trial)
                        self.groups_of.setdefault(trial, []).append(group)
        self.results: dict[Trial, Result] = {}
        if keep == "best":
            found = store.results(plan.trials, plan.also)
            self.results = {trial: result for trial, result in found.items() if self.networks.has(trial)}

    def take(self, trial: Trial, result: Result, weights: bytes | None) -> None:
        """Keep a finished trial's network, if it is to be kept."""
        if weights is None or trial not in self.groups_of:
            return
        self.networks.add(trial, weights)
        if self.keep == "best":
            before = [self._best(group) for group in self.groups_of[trial]]
            self.results[trial] = result
            for other in {trial, *(each for each in before if each is not None)}:
                if not any(self._best(group) == other for group in self.groups_of[other]):
                    del self.results[other]
                    self.networks.drop(other)

    def _best(self, group: Group) -> Trial | None:
        method, _, tasks = group
        members = [trial for trial in self.groups[group] if trial in self.results]
        served = deciding(self.plan, self.plan.serves(method, tasks))
        scores = validation_scores(served, [self.results[trial] for trial in members])
        return members[min(range(len(members)), key=scores.__getitem__)] if members else None
