"""What follows from a study: share, and under what; or train alone; or that nothing here decides it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.study.analysis.number_phrases import relative_of
from steelyard.study.analysis.questions import SLIGHT
from steelyard.study.judgement import Interval

UNDECIDED = "Whether to share is undecided"


@dataclass(frozen=True)
class Candidate:
    """One way of sharing that may be advised.

    Attributes:
        name: in words.
        change: Δm against single-task learning, as it is printed.
        by_itself: the same, at least as wide as what its metrics count; unbounded where all seeds agree exactly.
        clearly: the same, as wide as its choice among several asks for.
        among: of so many strategies it is the best; 1 where it was not chosen.
        tasks: how many there are.
        apart: the tasks that it hurts, and that it serves by a network of their own where some are hurt, in words;
            empty where none is hurt.
        on_their_own: how many tasks are hurt, or served so.
        gains: the tasks that share and that it is shown to help, in words; empty where there are none.
        gaining: how many these are.
        harmless: whether it is known of every other task that it loses nothing that matters.
        cost: the training time of its network, and of those of the tasks that it hurts, over that of all single tasks.
    """

    name: str
    change: Interval
    by_itself: Interval
    clearly: Interval
    among: int
    tasks: int
    apart: str
    on_their_own: int
    gains: str
    gaining: int
    harmless: bool
    cost: float

    @property
    def nothing_shared(self) -> bool:
        return self.on_their_own == self.tasks

    @property
    def may_share(self) -> bool:
        return self.clearly.low > -SLIGHT and not self.nothing_shared

    @property
    def chosen(self) -> str:
        """Why the best of several needs to be clearer than another."""
        return f"was chosen of {self.among} by the same numbers, and would have to be clearer"


def advice(best: Candidate, others: Sequence[Candidate], plain: Candidate | None) -> str:
    """One or two sentences: the first candidate that may be advised, or what is known of the best.

    Args:
        best: the strategy that is furthest above the plain sum, of those shown to be above it; else the plain sum, or
            without one the strategy with the largest Δm.
        others: the other candidates, in the order in which they may be advised.
        plain: the plain sum, where it was run.
    """
    advised = next((each for each in (best, *others) if each.may_share), None)
    if advised is not None:
        beside = plain is not None and best is not plain and advised is plain
        return _share(advised) + (f" {best.name}, which is better than it, {best.chosen}." if beside else "")
    if best.nothing_shared or (best.by_itself.high < 0 and not best.apart and not best.gains):
        open_yet = [each for each in others if each.by_itself.high >= 0 and not each.nothing_shared]
        if not open_yet:
            return "Train every task alone: nothing here is shown to be as good."
        furthest = max(open_yet, key=lambda each: each.change.mean)
        of_best = "is by itself worse over all tasks" if best.by_itself.high < 0 else "leaves no task to share"
        return f"{UNDECIDED}: {best.name} {of_best}, {_amount_under(furthest)}"
    if best.apart:
        return f"Train {best.apart} alone{_others(best)}."
    return _undecided(best, plain)


def _amount_under(candidate: Candidate) -> str:
    doubt = f" {candidate.name} {candidate.chosen}." if candidate.change.low > -SLIGHT and candidate.among > 1 else ""
    return f"and under {candidate.name} Δm is {relative_of({'': candidate.change}).strip()}.{doubt}"


def _share(candidate: Candidate) -> str:
    """At the cost of what is advised: tasks that it hurts have networks of their own beside it, and stay in it: what
    the others gain was found with them there."""
    of_singles = f"{candidate.cost:.2f} × the training time of single tasks" if math.isfinite(candidate.cost) else ""
    worse = "" if candidate.clearly.low > 0 else f": no more than {100 * SLIGHT:g} % worse over all tasks"
    if not candidate.apart:
        return f"Share under {candidate.name}{f', at {of_singles}' if of_singles else ''}{worse}."
    at = f", at {of_singles} in all" if of_singles else ""
    return f"Share under {candidate.name}, and train {candidate.apart} alone as well{at}{worse}."


def _others(best: Candidate) -> str:
    """What becomes of those that are not hurt: in the network that the hurt ones stay in, where that is shown."""
    if not best.harmless and best.tasks - best.on_their_own == 1:  # it has nobody else to share with
        return "; whether sharing helps the other is undecided"
    if not best.harmless:
        return "; whether the others should share is undecided"
    rest = best.tasks - best.on_their_own - best.gaining
    helps = [f"helps {best.gains}"] if best.gains else []
    costs = [f"costs the other{'s' if rest > 1 else ''} nothing that matters"] if rest else []
    return f" as well: sharing under {best.name} {' and '.join([*helps, *costs])}"


def _undecided(best: Candidate, plain: Candidate | None) -> str:
    if best.gains and best.by_itself.high < 0:
        by_itself = f"Δm {relative_of({'': best.by_itself}).strip()}"
        return f"{UNDECIDED}: {best.name} helps {best.gains}, and over all tasks it is by itself worse, {by_itself}."
    doubt = f" {best.name} {best.chosen}." if best.change.low > -SLIGHT and best.among > 1 else ""
    if plain is None or best is plain:
        return f"{UNDECIDED}.{doubt}"
    amount = f"Δm {relative_of({'': best.change}).strip()}"
    return f"{UNDECIDED}: under {best.name}, which is better than the plain sum, it is {amount}.{doubt}"
