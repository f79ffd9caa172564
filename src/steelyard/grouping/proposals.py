"""Which subset of tasks to measure next: of every size alike, and of the tasks that were measured least.

What is proposed does not depend on what was measured, so that all subsets can be trained at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Subset = frozenset[str]
Counts = NDArray[np.float64]
Chosen = NDArray[np.bool_]

# Up to so many tasks all subsets are listed; of more tasks nobody measures a large share of them.
LISTED = 10
# How often a drawn subset may be one that is known already before measured tasks are as welcome as others.
TRIES = 50


def propose(tasks: Sequence[str], rng: np.random.Generator, candidates: Sequence[Subset] | None) -> Iterator[Subset]:
    """Subsets of two tasks or more but not all, none twice, until there is none left.

    A size is drawn, each alike; then, of the subsets of that size, one whose tasks were proposed least so far.

    Args:
        tasks: all tasks.
        rng: draws sizes and breaks ties.
        candidates: the only ones that may be proposed; any subset where not given.
    """
    if candidates is None and len(tasks) <= LISTED:
        candidates = [frozenset(chosen) for size in range(2, len(tasks)) for chosen in combinations(tasks, size)]
    pool = _Any(len(tasks), rng) if candidates is None else _Listed(tasks, candidates, rng)
    counts = np.zeros(len(tasks))
    while (chosen := pool.draw(counts)) is not None:
        counts += chosen
        yield frozenset(name for name, inside in zip(tasks, chosen, strict=True) if inside)


class _Listed:
    """Proposals from a list."""

    def __init__(self, tasks: Sequence[str], candidates: Sequence[Subset], rng: np.random.Generator) -> None:
        self.rng = rng
        rows = [[name in subset for name in tasks] for subset in candidates if 1 < len(subset) < len(tasks)]
        self.left = np.array(rows, dtype=bool).reshape(len(rows), len(tasks))

    def draw(self, counts: Counts) -> Chosen | None:
        if not len(self.left):
            return None
        sizes = self.left.sum(1)
        of_size = np.flatnonzero(sizes == self.rng.choice(np.unique(sizes)))
        proposed = (self.left[of_size] @ counts) / sizes[of_size]
        place = self.rng.choice(of_size[proposed <= proposed.min() + 1e-9])
        chosen: Chosen = self.left[place].copy()
        self.left = np.delete(self.left, place, axis=0)
        return chosen


class _Any:
    """Proposals from all subsets of more than `LISTED` tasks."""

    def __init__(self, tasks: int, rng: np.random.Generator) -> None:
        self.tasks, self.rng = tasks, rng
        self.known: set[bytes] = set()

    def draw(self, counts: Counts) -> Chosen | None:
        if len(self.known) == 2**self.tasks - self.tasks - 2:
            return None
        attempt = 0
        while True:
            order = np.lexsort((self.rng.random(self.tasks), counts * (attempt < TRIES)))
            chosen = np.zeros(self.tasks, dtype=bool)
            chosen[order[: self.rng.integers(2, self.tasks)]] = True
            if chosen.tobytes() not in self.known:
                self.known.add(chosen.tobytes())
                return chosen
            attempt += 1
