"""The best few rows that serve every task, against trying all of them."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from cells import every
from steelyard.grouping.cover import best_cover


def by_trying(gains: np.ndarray, networks: int) -> float:
    rows = range(len(gains))
    choices = chain.from_iterable(combinations(rows, size) for size in range(1, networks + 1))
    return max(gains[list(choice)].max(0).sum() for choice in choices)


def by_integer_program(gains: np.ndarray, networks: int) -> float:
    """The p-median problem as it is in the textbooks: y_k rows that are open, x_kt who serves whom."""
    rows, tasks = gains.shape
    served = np.argwhere(np.isfinite(gains))
    count = len(served)
    costs = np.concatenate([np.zeros(rows), -gains[tuple(served.T)]])
    once, opened = np.zeros((tasks, rows + count)), np.zeros((count, rows + count))
    for place, (row, task) in enumerate(served):
        once[task, rows + place] = 1
        opened[place, rows + place], opened[place, row] = 1, -1
    few = np.concatenate([np.ones(rows), np.zeros(count)])[None]
    rules = [LinearConstraint(once, 1, 1), LinearConstraint(opened, -1, 0), LinearConstraint(few, 0, networks)]
    found = milp(costs, constraints=rules, integrality=1, bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0})
    assert found.success
    return -found.fun


def table(rng: np.random.Generator, rows: int, tasks: int, decimals: int = 15) -> np.ndarray:
    inside = rng.random((rows, tasks)) < rng.uniform(0.2, 0.9, size=(rows, 1))
    return np.where(inside, rng.normal(size=(rows, tasks)).round(decimals), -np.inf)


@every("seed", range(300))
def test_small_tables(seed: int) -> None:
    """With ties (gains rounded to whole numbers) and tables that no choice covers."""
    rng = np.random.default_rng(seed)
    networks = int(rng.integers(1, 4))
    gains = table(rng, rng.integers(2, 13), rng.integers(1, 7), rng.choice([0, 1, 15]))
    cover, best = best_cover(gains, networks), by_trying(gains, networks)
    if cover is None:
        assert best == -np.inf
        return
    assert cover.gap == 0.0
    assert len(cover.rows) <= networks
    assert cover.value == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert gains[list(cover.rows)].max(0).sum() == pytest.approx(cover.value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
@pytest.mark.parametrize("networks", [2, 4, 6])
def test_tables_of_some_size(networks: int, scale: float) -> None:
    gains = table(np.random.default_rng(networks), 40, 12) * scale
    cover = best_cover(gains, networks, most_nodes=10**6)
    assert cover is not None
    assert cover.gap == 0.0
    assert cover.value == pytest.approx(by_integer_program(gains / scale, networks) * scale, rel=1e-7)


def test_equal_rows() -> None:
    cover = best_cover(np.ones((5, 3)), 2)
    assert cover is not None
    assert (cover.rows, cover.value, cover.gap) == ((0,), 3.0, 0.0)


def test_what_no_choice_covers() -> None:
    gains = np.array([[1.0, -np.inf, -np.inf], [-np.inf, 1.0, -np.inf], [-np.inf, -np.inf, 1.0]])
    assert best_cover(gains, 2) is None
    assert best_cover(gains[:2], 3) is None
    assert best_cover(gains, 3) is not None


def test_stopped_before_the_proof_it_says_how_much_may_be_missing() -> None:
    gains = table(np.random.default_rng(0), 400, 60)
    quick, whole = best_cover(gains, 8, most_nodes=1), best_cover(gains, 8, most_nodes=10**6)
    assert quick is not None
    assert whole is not None
    assert 0.0 < quick.gap < np.inf
    assert quick.value <= whole.value <= quick.value + quick.gap


@pytest.mark.takes("three tables of a thousand subsets and thirty tasks")
@pytest.mark.parametrize("networks", [3, 5, 8])
def test_a_thousand_subsets_of_thirty_tasks_are_decided(networks: int) -> None:
    rng = np.random.default_rng(networks)
    inside = rng.random((1000, 30)) < rng.uniform(0.1, 0.9, size=(1000, 1))
    others = rng.normal(size=(30, 30)) * 0.1
    gains = np.where(inside, inside @ others.T + rng.normal(size=(1000, 30)) * 0.1, -np.inf)
    singles = np.where(np.eye(30, dtype=bool), 0.0, -np.inf)
    cover = best_cover(np.concatenate([gains, singles]), networks)
    assert cover is not None
    assert cover.gap == 0.0


def test_whether_there_is_a_choice_is_decided_however_few_nodes_are_allowed() -> None:
    """Two halves that fit together, among larger rows of which no two do: a greedy choice and exchanges fail."""
    rng = np.random.default_rng(1)
    half = np.zeros(12, dtype=bool)
    half[rng.permutation(12)[:6]] = True
    inside = [half, ~half]
    while len(inside) < 60:
        row = np.zeros(12, dtype=bool)
        row[rng.choice(12, 7 + len(inside) % 2, replace=False)] = True
        if not any((row | other).all() for other in inside):
            inside.append(row)
    cover = best_cover(np.where(np.array(inside), 1.0, -np.inf), 2, most_nodes=0)
    assert cover is not None
    assert (cover.rows, cover.value) == ((0, 1), 12.0)


def test_that_there_is_no_choice_is_seen_at_once() -> None:
    """Too few networks for many tasks whose networks serve one each, or two: every choice of them would be tried."""
    alone = np.where(np.eye(60, dtype=bool), 0.0, -np.inf)
    assert best_cover(alone, 20) is None
    pairs = np.vstack([alone, *(np.where(np.isin(np.arange(60), [k, k + 1]), 0.1, -np.inf) for k in range(59))])
    assert best_cover(pairs, 29) is None
    found = best_cover(pairs, 30)
    assert found is not None
    assert found.value == pytest.approx(6.0)
