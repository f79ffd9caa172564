"""All words of a study judged together: one family, in which the plain sum is asked first.

A study asks of every task whether the plain sum hurts it, and only then what each strategy makes of it. So tests come
in units (a task in one setting; all tasks together), each with one test that comes first and others that follow. The
error that a study may make is divided among the units, and within each goes to the first test for the most part, so
that the main question does not pay for the number of strategies; what a test does not need any more is passed on.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Test = TypeVar("Test", bound=Hashable)

FIRST = 0.8
"""The part of a unit's error that the plain sum has; the others share the rest until it is decided."""


@dataclass(frozen=True)
class Unit(Generic[Test]):
    """Tests about one task in one setting: the one that is asked first, and those that follow."""

    first: Test | None
    others: tuple[Test, ...] = ()


def together(p_values: Mapping[Test, float], units: Sequence[Unit[Test]], first: float = FIRST) -> dict[Test, float]:
    """Adjusted p-values: the smallest family-wise level at which each claim would be made.

    Level α is divided equally among the units with an open test. In a unit the first test has ``first`` of the share,
    the r others ``(1 − first) / r`` each; once the first is decided the others have all of it, once they are decided it
    has. The test with the smallest p / weight is decided next. No weight ever shrinks, which makes this a sequentially
    rejective weighted Bonferroni procedure: the probability of any false claim is at most α whatever the dependence
    between tests.

    Tests without a p-value (one seed) take no part.

    Source: Hommel, Bretz & Maurer, "Powerful short-cuts for multiple testing procedures with special reference to
    gatekeeping strategies", Statist. Med. 26 (2007); Bretz, Maurer, Brannath & Posch, "A graphical approach to
    sequentially rejective multiple test procedures", Statist. Med. 28 (2009).
    """
    opened = [state for unit in units if (state := _OpenTests(unit, p_values, first)).tests]
    queue = [(state.ratio, place) for place, state in enumerate(opened)]
    heapq.heapify(queue)
    adjusted: dict[Test, float] = {}
    largest = 0.0
    while queue:
        ratio, place = queue[0]
        largest = max(largest, min(1.0, len(queue) * ratio))
        adjusted[opened[place].decide()] = largest
        if opened[place].tests:
            heapq.heapreplace(queue, (opened[place].ratio, place))
        else:
            heapq.heappop(queue)
    return adjusted


class _OpenTests(Generic[Test]):
    """A unit with its open tests: the first one, and the others with the smallest p-value last."""

    def __init__(self, unit: Unit[Test], p_values: Mapping[Test, float], first: float) -> None:
        self.p_values, self.share = p_values, first
        self.first = [unit.first] if unit.first is not None and unit.first in p_values else []
        self.others = sorted((test for test in unit.others if test in p_values), key=lambda test: -p_values[test])

    @property
    def tests(self) -> int:
        return len(self.first) + len(self.others)

    @property
    def ratio(self) -> float:
        """The smallest p / weight, were this the only unit."""
        return min(self._first(), self._other())

    def decide(self) -> Test:
        """Take out the test with the smallest p / weight."""
        return self.first.pop() if self.first and self._first() <= self._other() else self.others.pop()

    def _first(self) -> float:
        if not self.first:
            return float("inf")
        return self.p_values[self.first[0]] / (self.share if self.others else 1.0)

    def _other(self) -> float:
        if not self.others:
            return float("inf")
        return self.p_values[self.others[-1]] * len(self.others) / (1.0 - self.share if self.first else 1.0)
