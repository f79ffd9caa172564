"""Seeds that were added after a look: who asks a question again, with more of them, has had more than one chance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from scipy import special

from steelyard.errors import DamagedStoreError
from steelyard.study.analysis.statistics import LEVEL
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
DRAWN = 4_000_000  # numbers, for a rate that is told in whole per cent


def look_notes(plan: Plan, store: Store) -> list[str]:
    """What a report says of a plan some of whose seeds were judged before."""
    looks = earlier_looks(plan, store)
    if not looks:
        return []
    before = frozenset(looks[-1])
    chances = [*map(len, looks), len(plan.seeds)]
    count = NUMBERS.get(len(chances), str(len(chances)))
    new = [seed for seed in plan.seeds if seed not in before]
    own = f". The new seeds are a study of their own: --seeds {','.join(map(str, new))}" if len(new) > 2 else ""
    return [
        f"{len(before)} of these {len(plan.seeds)} seeds were judged before. A question for which seeds were added "
        f"until it was decided has had {count} chances: of such, {100 * false_after(chances):.0f} in 100 are decided "
        f"with nothing there, in place of {100 * (1 - LEVEL):.0f}{own}"
    ]


def earlier_looks(plan: Plan, store: Store) -> list[Sequence[int]]:
    """The seeds of each earlier plan that compared arms of this one, and was done before this one was made.

    Of several with as many seeds one counts. The fewest seeds come first.
    """
    made = _time(plan)
    method_of = {trial.key: trial.method for trial in plan.trials}
    found: dict[int, Sequence[int]] = {}
    for content in store.plans():
        try:
            earlier = Plan.from_dict(content)
        except DamagedStoreError:
            continue
        if not set(earlier.seeds) < set(plan.seeds) or len(earlier.seeds) < 2 or _time(earlier) >= made:
            continue  # one seed has no interval, and decides nothing
        shared = {method_of[trial.key] for trial in earlier.trials if trial.key in method_of}
        if len(shared) > 1 and _done(earlier, store, made):
            found.setdefault(len(earlier.seeds), earlier.seeds)
    return [found[seeds] for seeds in sorted(found)]


def _time(plan: Plan) -> float:
    return datetime.fromisoformat(plan.created).timestamp()


def _done(plan: Plan, store: Store, by: float) -> bool:
    """All of its trials had ended by then: the seeds that it asked for could be judged."""
    trained = store.trained(plan.trials, plan.also)
    failed = store.failures(plan.trials)
    return all(trial in failed or (trial in trained and trained[trial].written <= by) for trial in plan.trials)


def false_after(looks: Sequence[int]) -> float:
    """How often a t test at 5 % is significant at one look or another, of normal values that have a mean of zero.

    Args:
        looks: numbers of seeds, each look at all that there are by then.
    """
    most = max(looks)
    values = np.random.default_rng(1).standard_normal((DRAWN // most, most))
    decided = np.zeros(len(values), dtype=bool)
    for seeds in looks:
        sample = values[:, :seeds]
        statistic = np.abs(sample.mean(1)) / sample.std(1, ddof=1) * np.sqrt(seeds)
        decided |= 2 * special.stdtr(seeds - 1, -statistic) < 1 - LEVEL
    return float(decided.mean())
