"""Which strategies undo the harm of the plain sum, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping

from steelyard.io.lists_and_counts import listed
from steelyard.study.analysis.number_phrases import amount_of
from steelyard.study.analysis.statistics import LEVEL, Array, Key, claim, counted_floor, holm, interval
from steelyard.study.analysis.trial_results import better_by
from steelyard.study.analysis.verdict.setting_facts import FINE, NAMED, SettingFacts
from steelyard.study.judgement import Cell, Interval
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK


def repair(here: SettingFacts) -> list[str]:
    """Which strategies undo the harm of the plain sum."""
    hurt = here.judged(here.plain, "negative transfer") if here.plain else []
    if not hurt or not here.strategies:
        return []
    said, unrepaired, eased = [], [], _eased(here, hurt)
    for cell in hurt[:NAMED]:
        mended = [m for m in here.strategies if here.verdict(m, cell.task) in FINE]
        partly = [m for m in here.strategies if m not in mended and (m, cell.task) in eased]
        task = here.label(cell.task)
        if mended:
            said.append(_mended(here, task, cell.task, mended))
        if partly:
            best = sorted(partly, key=lambda method: eased[method, cell.task].mean, reverse=True)
            amounts = {method: amount_of(here.tasks[cell.task], eased[method, cell.task]) for method in best}
            by = here.first_of_many(best, "; ".join(f"{method} by {amounts[method]}" for method in best[:NAMED]))
            said.append(f"Not repaired, but by itself better than under the plain sum, is {task} with {by}.")
        if not mended and not partly:
            unrepaired.append(task)
    if unrepaired:
        said.append(f"No strategy here is shown to repair {listed(unrepaired, 'or')}.")
    if len(hurt) > NAMED:
        counts = ", ".join(
            f"{method} {sum(here.verdict(method, c.task) in FINE for c in hurt)}" for method in here.strategies
        )
        said = [f"Of the {len(hurt)} tasks that the plain sum hurts, so many are repaired: {counts}."]
    return said


def _mended(here: SettingFacts, label: str, task: str, methods: list[str]) -> str:
    """Who repairs a task, and at what cost; of many the best."""
    best = sorted(methods, key=lambda method: float(_better_by(here, method, task).mean()), reverse=True)
    named = listed(_with_cost(here, method) for method in best[:NAMED])
    if len(methods) > NAMED:
        return f"{len(methods)} of {len(here.strategies)} strategies repair {label}, above all {named}."
    return f"{named} repair{'s' if len(methods) == 1 else ''} {label}."


def _better_by(here: SettingFacts, method: str, name: str) -> Array:
    """The improvement over single-task by seed."""
    task = here.tasks[name]
    return better_by(task, *here.found.paired(task, method, SINGLE_TASK, here.index))


def _eased(here: SettingFacts, hurt: list[Cell]) -> dict[tuple[str, str], Interval]:
    """(strategy, task) -> improvement over the plain sum, where it is beyond chance (Holm over all of these)."""
    samples, least = {}, {}
    for method in here.strategies:
        for cell in hurt:
            task = here.tasks[cell.task]
            ours, theirs = here.found.paired(task, method, PLAIN_SUM, here.index)
            sample = better_by(task, ours, theirs)
            samples[method, cell.task] = sample
            floor = (
                counted_floor(sample, [*ours, *theirs], task.test_rows, task.metrics[0].counts) if len(ours) else 0.0
            )
            least[method, cell.task] = floor
    return {key: found for key, found in _beyond_chance(samples, least).items() if found.mean > 0}


def _with_cost(here: SettingFacts, method: str) -> str:
    ratio = here.rows[method].relative_cost / here.rows[here.plain].relative_cost
    return f"{method} (at {ratio:.2f} × the plain sum's training time)" if math.isfinite(ratio) else method


def _beyond_chance(samples: Mapping[Key, Array], least: Mapping[Key, float]) -> dict[Key, Interval]:
    """The mean differences that two-sided t tests tell from zero, Holm-adjusted over all samples given; each is taken
    to deviate by so much at least."""
    claims = {key: made for key, sample in samples.items() if (made := claim(sample, 0.0, least[key])) is not None}
    adjusted = holm({key: made.p_value for key, made in claims.items()})
    found = {key: interval(samples[key], least=least[key]) for key in claims if adjusted[key] <= 1 - LEVEL}
    return {key: value for key, value in found.items() if value is not None}
