"""Where results come from, in words: what was reused, since when, and what was trained with other code or data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from steelyard.errors import DamagedStoreError
from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.provenance import differences
from steelyard.study.storage.store import Store, Trained
from steelyard.study.trial import Trial


def origin_notes(found: TrialResults) -> list[str]:
    """What a report says of the trials that the command which planned them did not train itself."""
    plan, trained = found.plan, found.trained
    started = datetime.fromisoformat(plan.created).timestamp()
    reused = [each for each in trained.values() if each.written < started]
    notes = []
    if reused:
        notes.append(f"{len(reused)} of {counted(len(plan.trials), 'trial')} reused, {_trained_at(reused)}")
    others = [each for trial, each in trained.items() if each.problem != trial.problem]
    if others:
        since = f"; changed since: {found.changed}" if found.changed else ""
        notes.append(f"trained with other code or data, and taken all the same: {counted(len(others), 'trial')}{since}")
    if plan.origin is None and trained:
        notes.append("planned by Steelyard 0.1, which took no note of code and data: results may be of earlier ones")
    return notes


def stale_note(plan: Plan, store: Store, waiting: Iterable[Trial]) -> str:
    """What to say where trials that are about to be trained are there already with another origin."""
    waiting = list(waiting)
    own = {trial.problem for trial in waiting}
    others = [origin for origin in store.origins(plan.identity) if origin not in own]
    stale = store.trained(waiting, others)
    if not stale:
        return ""
    changed = changed_since(plan, store, stale)
    return (
        f"Trained with other code or data: {counted(len(stale), 'trial')}."
        f"{f' Changed since: {changed}.' if changed else ''} What was found then stays in the store; now they are "
        "trained anew (--reuse-any takes them as they are)."
    )


def changed_since(plan: Plan, store: Store, trained: Mapping[Trial, Trained]) -> str:
    """What is no longer as it was when these trials were trained; empty where it is, or nothing is known.

    Where they were trained with several origins, that of the latest.
    """
    others = {trial: each for trial, each in trained.items() if each.problem != trial.problem}
    if plan.origin is None or not others:
        return ""
    latest = max(each.written for each in others.values())
    trial, found = next((trial, each) for trial, each in others.items() if each.written == latest)
    for content in store.plans():
        try:
            earlier = Plan.from_dict(content)
        except DamagedStoreError:
            continue
        if earlier.origin is not None and earlier.identity_of(trial) == found.problem:
            return ", ".join(differences(earlier.origin, plan.origin, trial))
    return ""


def _trained_at(reused: list[Trained]) -> str:
    """``trained at 2026-03-14 15:09``, or from when to when."""
    first, last = (
        f"{datetime.fromtimestamp(when).astimezone():%Y-%m-%d %H:%M}"
        for when in (min(each.written for each in reused), max(each.written for each in reused))
    )
    return f"trained at {first}" if first == last else f"trained from {first} to {last}"
