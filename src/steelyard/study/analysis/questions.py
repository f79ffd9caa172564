"""What a study asks, and what may be answered: every question is one test, and all of them are judged together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from steelyard.study.analysis.multiple_testing import FIRST, Unit, together
from steelyard.study.analysis.statistics import (
    LEVEL,
    MOST_SEEDS,
    Array,
    Claim,
    claim,
    counted_floor,
    seeds_to_settle,
)
from steelyard.study.analysis.trial_results import TrialResults, better_by
from steelyard.study.judgement import Verdict
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK

SLIGHT = 0.01  # a mean relative change whose interval lies within it may be told from zero, and still not matter
ALL = ""  # stands for all tasks together where others are named


class Question(NamedTuple):
    """Whether one method is better or worse than another on a task, or over all tasks."""

    setting: int
    method: str
    baseline: str
    task: str = ALL


class Answers:
    """The answers to all questions of a study.

    On each task: is the plain sum better or worse than single-task learning (or within 1 % of it), and is each
    strategy? Over all tasks: is the plain sum better or worse than single-task learning (or within 1 % of it), and is
    each strategy better or worse than the plain sum (than single-task learning, where the plain sum was not run)?

    A strategy that is the plain sum under another name (constant weights that were chosen equal, say) asks nothing of
    its own: on each task it has the plain sum's answer, and it takes no part of the study's error. Where the plain sum
    failed in all seeds, or in all but one, the study is one without it.
    """

    def __init__(self, found: TrialResults) -> None:
        self.found = found
        joint = [method.name for method in found.plan.methods if method.name != SINGLE_TASK]
        settings = range(len(found.plan.settings))
        there = PLAIN_SUM in joint
        self.plain = [PLAIN_SUM if there and not found.too_many_failed(PLAIN_SUM, each) else "" for each in settings]
        self.strategies = [method for method in joint if method != PLAIN_SUM]
        self.samples: dict[Question, Array] = {}
        self.regions: dict[Question, float] = {}
        self.least: dict[Question, float] = {}
        self.same: dict[Question, Question] = {}  # asked of the plain sum, as of the strategy that is one with it
        self.twins = [[each for each in self.strategies if self._is_plain(each, setting)] for setting in settings]
        self.units = [self._unit(setting, task) for setting, task in self._units()]
        claims = {question: self._claim(question) for question in self.samples if question not in self.same}
        self.claims = {question: made for question, made in claims.items() if made is not None}
        p_values = {question: made.p_value for question, made in self.claims.items()}
        self.adjusted = together(p_values, self.units)

    def asked(self, method: str, setting: int, task: str = ALL) -> Question | None:
        """What is asked of a method; None where nothing can be compared."""
        plain = self.plain[setting]
        against = plain if task == ALL and plain and method != plain else SINGLE_TASK
        question = Question(setting, method, against, task)
        return question if question in self.samples else None

    def verdict(self, question: Question) -> tuple[Verdict, float | None]:
        """The word that holds together with all others of the study, and its adjusted p-value."""
        question = self._one(question)
        if question not in self.claims:
            return "undecided", None
        adjusted = self.adjusted[question]
        return (self.claims[question].verdict if adjusted <= 1.0 - LEVEL else "undecided"), adjusted

    def alone(self, question: Question) -> Verdict | None:
        """The word that the question would get by itself, where the study as a whole does not allow it."""
        made = self.claims.get(self._one(question))
        if made is None or made.p_value > 1.0 - LEVEL or self.verdict(question)[0] != "undecided":
            return None
        return made.verdict

    def seeds_to_settle(self, question: Question) -> tuple[int, int] | None:
        """How many seeds are likely to settle it, from and to, at the level that it has before all others."""
        most = min(MOST_SEEDS, self.found.plan.most_seeds)
        sample, region = self.samples[question], 0.0 if question.task == ALL else self.regions[question]
        return seeds_to_settle(sample, region, self.least[question], self._level(question), most)

    def has_claim(self, question: Question) -> bool:
        """Whether anything can be claimed of it at some level: not of one seed, nor of seeds that agree exactly."""
        return self._one(question) in self.claims

    def _one(self, question: Question) -> Question:
        return self.same.get(question, question)

    def _level(self, question: Question) -> float:
        question = self._one(question)
        (unit,) = (unit for unit in self.units if question == unit.first or question in unit.others)
        share = (1.0 - LEVEL) / sum(1 for unit in self.units if unit.first or unit.others)
        if question == unit.first:
            return share * (FIRST if unit.others else 1.0)
        return share * (1.0 - FIRST if unit.first else 1.0) / len(unit.others)

    @cached_property
    def size(self) -> int:
        """How many questions are judged together."""
        return len(self.claims)

    def _units(self) -> Iterator[tuple[int, PlannedTask | None]]:
        for setting in range(len(self.found.plan.settings)):
            yield setting, None
            for task in self.found.plan.tasks:
                yield setting, task

    def _unit(self, setting: int, task: PlannedTask | None) -> Unit[Question]:
        plain = self.plain[setting]
        first = self._ask(setting, plain, SINGLE_TASK, task) if plain else None
        against = plain if task is None and plain else SINGLE_TASK
        twins = self.twins[setting]
        asked = [self._ask(setting, method, against, task) for method in self.strategies if method not in twins]
        if task is not None and first is not None:
            of_twins = [self._ask(setting, method, against, task) for method in twins]
            self.same |= {question: first for question in of_twins if question is not None}
        return Unit(first, tuple(question for question in asked if question is not None))

    def _is_plain(self, method: str, setting: int) -> bool:
        """Whether every number of it is the plain sum's, of all tasks and seeds, at the chosen epoch and the last."""
        return bool(self.plain[setting]) and all(
            self.found.metrics(method, setting, task.name, last)
            == self.found.metrics(PLAIN_SUM, setting, task.name, last)
            for task in self.found.plan.tasks
            for last in (False, True)
        )

    def _ask(self, setting: int, method: str, baseline: str, task: PlannedTask | None) -> Question | None:
        found = self.found
        if not found.has(baseline):
            return None
        question = Question(setting, method, baseline, task.name if task else ALL)
        if task is None:
            sample, least = found.changes(method, baseline, setting), found.change_floor(method, baseline, setting)
            region = SLIGHT if baseline == SINGLE_TASK else 0.0
        else:
            ours, theirs = found.paired(task, method, baseline, setting)
            if not len(theirs):
                return None
            sample = better_by(task, ours, theirs)
            region = task.equivalence * abs(float(theirs.mean()))
            least = counted_floor(sample, [*ours, *theirs], task.test_rows, task.metrics[0].counts)
        if not len(sample):
            return None
        self.samples[question], self.regions[question], self.least[question] = sample, region, least
        return question

    def _claim(self, question: Question) -> Claim | None:
        beyond = 0.0 if question.task == ALL else None
        return claim(self.samples[question], self.regions[question], self.least[question], beyond)
