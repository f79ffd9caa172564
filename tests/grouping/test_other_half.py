"""Groups have to pay on rows that they were not chosen on."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from steelyard.grouping.other_half import noise_of, only_network, paid_on_the_other_half
from steelyard.grouping.search import choose

TASKS = tuple("abcd")


def measured(truth, noise: float, seed: int):
    """Every subset's gains on either half: the truth and noise of its own."""
    rng = np.random.default_rng(seed)
    subsets = [frozenset(chosen) for size in (2, 3, 4) for chosen in combinations(TASKS, size)]
    return {subset: {task: truth(subset, task) + noise * rng.normal(size=2) for task in sorted(subset)}
            for subset in subsets}  # fmt: skip


def friends(subset, task) -> float:
    """a and b help each other, and so do c and d; others harm."""
    pair = "ab" if task in "ab" else "cd"
    return sum(0.2 if other in pair else -0.2 for other in subset if other != task)


def test_luck_does_not_pay_and_groups_do() -> None:
    nothing = [paid_on_the_other_half(TASKS, measured(lambda s, t: 0.0, 1.0, seed), 2, None) for seed in range(200)]
    assert abs(np.mean(nothing)) < 3 * np.std(nothing) / len(nothing) ** 0.5
    promised = choose(TASKS, {s: {t: float(v.mean()) for t, v in of.items()} for s, of in
                              measured(lambda s, t: 0.0, 1.0, 0).items()}, 2)  # fmt: skip
    assert promised.gain > 0.3
    # Two pairs gain 0.2 where one for all loses 0.2.
    assert paid_on_the_other_half(TASKS, measured(friends, 0.01, 0), 2, None) == pytest.approx(0.4, abs=0.02)


def test_of_tasks_without_halves_nothing_is_said() -> None:
    halves = measured(friends, 0.0, 0)
    for of in halves.values():
        of.update({task: value[:1] for task, value in of.items() if task in "cd"})
    assert paid_on_the_other_half(TASKS, halves, 2, None) == pytest.approx(0.4)
    for of in halves.values():
        of.update({task: value[:1] for task, value in of.items()})
    assert paid_on_the_other_half(TASKS, halves, 2, None) is None
    halves.pop(frozenset(TASKS))
    assert paid_on_the_other_half(TASKS, halves, 2, None) is None


def test_noise_is_that_of_seeds_and_of_rows() -> None:
    halves = {frozenset("ab"): {"a": np.array([0.1, 0.3]), "b": np.array([0.0])}, frozenset("abc"): {
        "a": np.array([0.2, 0.2]), "b": np.array([0.4]), "c": np.array([0.0, 0.6])}}  # fmt: skip
    found = noise_of(halves, {"a": 0.1, "b": 0.2, "c": 0.0})
    assert found == pytest.approx({"a": (0.01 + (0.04 + 0.0) / 2 / 4) ** 0.5, "b": 0.2, "c": 0.3})


def test_noise_of_half_differences_is_that_of_means() -> None:
    rng = np.random.default_rng(1)
    halves = {frozenset(["a", str(k)]): {"a": 0.5 * rng.normal(size=2)} for k in range(4000)}
    means = [of["a"].mean() for of in halves.values()]
    assert noise_of(halves, {"a": 0.0})["a"] == pytest.approx(np.std(means), rel=0.05)


def test_one_network_takes_the_place_of_groups_and_what_was_measured_stays() -> None:
    table = {frozenset("ab"): {"a": 0.1, "b": -0.1}}
    groups = choose("ab", table, 2, spent=1.0)
    one = only_network(groups, frozenset("ab"))
    assert (one.networks, one.gain, one.spent) == ((frozenset("ab"),), 0.0, 1.0)
    assert one.measured == groups.measured
    assert one.network_of("b") == frozenset("ab")
