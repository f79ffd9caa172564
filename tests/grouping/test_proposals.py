"""Proposals: every size alike, no subset twice, tasks in turn."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from steelyard.grouping.proposals import propose


def drawn(tasks: int, count: int, seed: int = 0, candidates=None) -> list[frozenset[str]]:
    names = [f"t{number}" for number in range(tasks)]
    return list(islice(propose(names, np.random.default_rng(seed), candidates), count))


@pytest.mark.parametrize("tasks", [1, 2, 3, 5, 10])
def test_all_subsets_once_but_singles_and_the_whole(tasks: int) -> None:
    found = drawn(tasks, 5000)
    assert len(set(found)) == len(found) == max(0, 2**tasks - tasks - 2)
    assert all(1 < len(subset) < tasks for subset in found)


def test_none_twice_where_there_are_too_many_to_list() -> None:
    found = drawn(11, 5000)
    assert len(set(found)) == len(found) == 2**11 - 11 - 2


@pytest.mark.parametrize("tasks", [7, 40])
def test_sizes_alike_and_tasks_in_turn(tasks: int) -> None:
    sizes: Counter[int] = Counter()
    for seed in range(200):
        found = drawn(tasks, tasks, seed)
        sizes.update(len(subset) for subset in found)
        held = Counter(task for subset in found for task in subset)
        assert max(held.values()) - min(held[f"t{number}"] for number in range(tasks)) <= 3
    expected = 200 * tasks / (tasks - 2)
    assert all(abs(sizes[size] - expected) < 5 * expected**0.5 for size in range(2, tasks))


def test_candidates_alone() -> None:
    listed = [
        frozenset(["t0", "t1"]),
        frozenset(["t1", "t2", "t3"]),
        frozenset(["t0"]),
        frozenset(["t0", "t1", "t2", "t3"]),
    ]
    assert set(drawn(4, 100, candidates=listed)) == set(listed[:2])
    assert drawn(4, 100, candidates=[]) == []


def test_the_seed_decides() -> None:
    assert drawn(20, 30, seed=1) == drawn(20, 30, seed=1) != drawn(20, 30, seed=2)
    assert drawn(20, 10, seed=1) == drawn(20, 30, seed=1)[:10]  # a larger budget asks for the same first
