"""Share, and under what; or train alone; or that nothing here decides it."""

from __future__ import annotations

import math

from steelyard.study.analysis.costs import own_networks
from steelyard.study.analysis.number_phrases import lowered, method_name
from steelyard.study.analysis.statistics import LEVEL, deviation, interval
from steelyard.study.analysis.verdict.advice import Candidate, advice
from steelyard.study.analysis.verdict.overall import no_part_in
from steelyard.study.analysis.verdict.setting_facts import FINE, SettingFacts
from steelyard.study.judgement import Cell, Interval
from steelyard.study.planning.arms import parse_arm
from steelyard.study.trial import SINGLE_TASK


def recommendation(here: SettingFacts) -> list[str]:
    """Share, and under what; or train alone; or that nothing here decides it."""
    preferred = _preferred(here)
    if not preferred or here.lonely:
        return []
    among = len(here.strategies)
    found = [_candidate(here, method, 1 if method == here.plain else among) for method in preferred]
    candidates = {method: each for method, each in zip(preferred, found, strict=True) if each is not None}
    if preferred[0] not in candidates:
        return []
    if outside := no_part_in(here, preferred[0]):
        return [f"Nothing is advised: {outside}."]
    others = [each for method, each in candidates.items() if method in preferred[1:] and not no_part_in(here, method)]
    return [advice(candidates[preferred[0]], others, candidates.get(here.plain))]


def _candidate(here: SettingFacts, method: str, among: int) -> Candidate | None:
    """What there is to say for and against it; None where its Δm has no interval."""
    change = here.effect(method)[1]
    if change is None or not math.isfinite(change.low):
        return None
    hurt = here.judged(method, "negative transfer")
    # What it trains alone does not lose by sharing because it does not share.
    own = [cell for cell in _on_their_own(here, method) if cell not in hurt]
    fine = [cell for word in FINE for cell in here.judged(method, word) if cell not in own]
    gains = [cell for cell in here.judged(method, "gain") if cell not in own]
    return Candidate(
        name=lowered(method_name(method)),
        change=change,
        by_itself=_clearly(here, method, 1),
        clearly=_clearly(here, method, among),
        among=among,
        tasks=len(here.tasks),
        apart=here.named([*hurt, *own]) if hurt else "",
        on_their_own=len(hurt) + len(own),
        gains=here.named(gains) if gains else "",
        gaining=len(gains),
        harmless=len(fine) + len(hurt) + len(own) == len(here.tasks),
        cost=here.rows[method].relative_cost + _cost_of(here, [cell.task for cell in hurt]),
    )


def _cost_of(here: SettingFacts, tasks: list[str]) -> float:
    """Of networks of their own, over that of all single tasks."""
    return own_networks(here.found, tasks, here.index) if tasks else 0.0


def _on_their_own(here: SettingFacts, method: str) -> list[Cell]:
    """Tasks that a method of several networks serves by a network of their own."""
    alone = {each.serves[0] for each in parse_arm(method).networks if each.learns == each.serves[:1]}
    return [cell for task in here.tasks if task in alone and (cell := here.cells.get((method, task))) is not None]


def _clearly(here: SettingFacts, method: str, among: int) -> Interval:
    """Δm of the best of so many by the same numbers, with an interval that would hold those of all of them."""
    changes = here.found.changes(method, SINGLE_TASK, here.index)
    least = here.found.change_floor(method, SINGLE_TASK, here.index)
    if least == 0 and deviation(changes) == 0:
        return Interval(float(changes.mean()), -math.inf, math.inf)  # as if each seed were the first
    found = interval(changes, 1.0 - (1.0 - LEVEL) / among, least)
    assert found is not None
    return found


def _preferred(here: SettingFacts) -> list[str]:
    """Methods in the order in which they may be advised: the strategies that are shown to be above the plain sum, the
    furthest first; the plain sum; and the other strategies by Δm. Without a plain sum all strategies by Δm."""
    rest = sorted(here.strategies, key=here.mean_change, reverse=True)
    if not here.plain:
        return rest
    shown = {
        method: float(here.answers.samples[question].mean())
        for method in here.strategies
        if (question := here.answers.asked(method, here.index)) is not None
        and here.answers.verdict(question)[0] == "gain"
    }
    first = sorted(shown, key=lambda method: shown[method], reverse=True)
    return [*first, here.plain, *(method for method in rest if method not in shown)]
