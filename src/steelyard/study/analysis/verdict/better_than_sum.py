"""Whether anything is better than the plain sum, over all tasks together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from steelyard.study.analysis.number_phrases import relative_of
from steelyard.study.analysis.questions import SLIGHT, Question
from steelyard.study.analysis.statistics import interval
from steelyard.study.analysis.verdict.setting_facts import NAMED, SettingFacts, no_part, slight
from steelyard.study.judgement import Interval
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import PLAIN_SUM


def better_than_sum(here: SettingFacts) -> list[str]:
    """All tasks together, against the plain sum."""
    if not here.plain or not here.strategies:
        return []
    asked = {method: here.answers.asked(method, here.index) for method in here.strategies}
    questions = {method: each for method, each in asked.items() if each is not None and each in here.answers.claims}
    if not questions:
        return []
    changes = {method: here.answers.samples[question] for method, question in questions.items()}
    told = _told(here, questions)
    little = {method: found for method, found in told.items() if slight(found)}
    shown = {method: found for method, found in told.items() if method not in little}
    better = {method: found for method, found in shown.items() if found.mean > 0}
    worse = {method: found for method, found in shown.items() if found.mean < 0}
    said = []
    outside = [task for task in here.tasks.values() if all(task in each for each in _outside(here, questions))]
    over = f"Over {here.tasks_but(outside)} (mean change relative to the plain sum)"
    if better:
        said.append(f"{over}, better than it: {_first(here, better)}.")
    else:
        best = max(changes, key=lambda method: float(changes[method].mean()))
        by = f" by {100 * SLIGHT:g} % or more" * any(found.mean > 0 for found in little.values())
        change = interval(changes[best], least=here.answers.least[questions[best]])
        highest = f": {relative_of({best: change})}" if best not in told else ""
        among = f" is the highest of {len(changes)}" if highest and len(changes) > 1 else ""
        said.append(f"{over}, nothing is shown to be better than it{by}{highest}{among}.")
    if worse:
        said.append(f"{over}, worse than it: {_first(here, worse)}.")
    if little:
        said.append(f"{over}, told from it, but by less than {100 * SLIGHT:g} %: {_first(here, little)}.")
    if outside:
        said.append(f"{no_part(outside, 'this change', 'under the plain sum')}.")
    return said


def _outside(here: SettingFacts, methods: Iterable[str]) -> list[list[PlannedTask]]:
    """Of each method the tasks that have no part in its change: not alike where one has not finished all seeds."""
    return [here.found.unchanged(method, PLAIN_SUM, here.index) for method in methods]


def _told(here: SettingFacts, questions: Mapping[str, Question]) -> dict[str, Interval]:
    """The changes that are told from none, by strategy."""
    told = {}
    for method, question in questions.items():
        change = interval(here.answers.samples[question], least=here.answers.least[question])
        if change is not None and here.answers.verdict(question)[0] in ("gain", "negative transfer"):
            told[method] = change
    return told


def _first(here: SettingFacts, changes: Mapping[str, Interval]) -> str:
    """Strategies with their changes; of many the largest."""
    largest = sorted(changes, key=lambda method: abs(changes[method].mean), reverse=True)[:NAMED]
    return here.first_of_many(changes, relative_of({method: changes[method] for method in largest}))
