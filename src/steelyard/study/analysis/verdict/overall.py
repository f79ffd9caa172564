"""All tasks together: the effect of sharing with its interval, always, decided or not."""

from __future__ import annotations

import numpy as np

from steelyard.study.analysis.number_phrases import lowered, method_name, relative_of
from steelyard.study.analysis.verdict.setting_facts import NAMED, SettingFacts, first_labels, no_part, slight
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import SINGLE_TASK


def overall(here: SettingFacts) -> list[str]:
    """All tasks together: the effect of sharing with its interval, always, decided or not."""
    if here.lonely:
        return ["One task leaves nothing to share: what differs here is how it is trained."]
    return [text for method in _shared(here) if (text := _overall(here, method))]


def _shared(here: SettingFacts) -> list[str]:
    """The plain sum, or the strategies where it was not run; of many the first few by Δm."""
    if here.plain:
        return [here.plain]
    return sorted(here.strategies, key=here.mean_change, reverse=True)[:NAMED]


def _overall(here: SettingFacts, method: str) -> str:
    question, change = here.effect(method)
    if question is None or change is None:
        return _no_change(here, method)
    outside = no_part_in(here, method)
    tasks = here.tasks_but(_unchanged(here, method))
    over = f"Over {tasks}" + (f" ({outside})" if outside else "")
    amount = f"Δm {relative_of({'': change}).strip()}"
    word = here.answers.verdict(question)[0]
    name = method_name(method)
    if word == "undecided":
        doubt = " Judged alone it would be decided, but not with the rest of the study." * (
            here.answers.alone(question) is not None
        )
        return (
            f"{over} it is undecided whether {lowered(name)} is better or worse than single-task learning: "
            f"{amount}.{doubt}{here.seeds_sentence([question])}"
        )
    if word == "no difference":
        return f"{over} {lowered(name)} is within 1 % of single-task learning: {amount}."
    slightly = ", but by less than 1 %" if slight(change) else ""
    better = "better" if word == "gain" else "worse"
    return f"{over} {lowered(name)} is {better} than single-task learning{slightly}: {amount}."


def no_part_in(here: SettingFacts, method: str) -> str:
    """Which tasks have no part in a method's Δm, and why; empty where all have."""
    return no_part(_unchanged(here, method), "Δm", "alone")


def _unchanged(here: SettingFacts, method: str) -> list[PlannedTask]:
    return here.found.unchanged(method, SINGLE_TASK, here.index)


def _no_change(here: SettingFacts, method: str) -> str:
    """Why nothing is said of all tasks, where a task has no number; empty where there is nothing to compare yet."""
    without = [
        task
        for task in here.found.plan.tasks
        if any(
            not np.isfinite(values).all()
            for each in (method, SINGLE_TASK)
            for values in here.found.metrics(each, here.index, task.name).values()
        )
    ]
    if not without:
        return ""
    name = lowered(method_name(method))
    return f"Over all tasks nothing is said of {name}: {first_labels(without)} had no number on test data."
