"""The search: what it asks to be measured, what it chooses, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from steelyard.errors import GroupingError
from steelyard.grouping import Grouping, choose, search

Table = dict[frozenset[str], dict[str, float]]


def planted(tasks: int, groups: int, noise: float, seed: int, harm: float = 0.1):
    """Tasks of one group gain 0.1 from each other and lose `harm` to each other task; a measure, and the true gains."""
    names = [f"t{number}" for number in range(tasks)]
    group = {name: number % groups for number, name in enumerate(names)}

    def truth(subset) -> dict[str, float]:
        return {t: sum(0.1 if group[o] == group[t] else -harm for o in subset - {t}) for t in subset}

    asked: list[tuple[list[frozenset[str]], float]] = []

    def measure(subsets: Sequence[frozenset[str]], effort: float = 1.0) -> Table:
        asked.append((list(subsets), effort))
        found = {}
        for subset in subsets:
            # As a training: the same subset has the same luck.
            luck = np.random.default_rng([seed, round(1000 * effort), *sorted(int(name[1:]) for name in subset)])
            found[subset] = {t: gain + noise * luck.normal() for t, gain in sorted(truth(subset).items())}
        return found

    return names, measure, truth, asked


def true_gain(grouping: Grouping, truth) -> float:
    return float(np.mean([truth(grouping.network_of(task))[task] for task in grouping.tasks]))


def test_planted_groups_are_found_when_all_is_measured() -> None:
    names, measure, _, _ = planted(6, 2, 0.0, 0)
    found = search(names, measure, budget=100, networks=2)
    assert {frozenset(network) for network in found.networks} == {frozenset(names[::2]), frozenset(names[1::2])}
    assert found.network_of("t3") == frozenset(["t1", "t3", "t5"])
    assert found.gain == pytest.approx(0.2)
    assert found.gap == 0.0
    assert found.spent == len(found.measured) == 2**6 - 6 - 1


@pytest.mark.parametrize("tasks", [8, 20])
def test_planted_groups_help_within_a_budget_under_noise(tasks: int) -> None:
    """Better than one network for all and than every task alone, on average, and better with more budget."""
    gains = []
    for budget in (tasks // 2, tasks, 3 * tasks):
        found = []
        for seed in range(30):
            names, measure, truth, _ = planted(tasks, 2, 0.05, seed)
            noise = dict.fromkeys(names, 0.05)
            found.append(true_gain(search(names, measure, budget=budget, networks=4, seed=seed, noise=noise), truth))
        gains.append(np.mean(found))
    everything = frozenset(names)
    assert np.mean(list(truth(everything).values())) < 0.0 < gains[0] < gains[1] < gains[2]


def test_noise_alone_seldom_looks_like_much() -> None:
    """With nothing to gain, what is promised stays small, and smaller where noise is known."""
    promised = {True: [], False: []}
    for seed in range(50):
        rng = np.random.default_rng(seed)
        names = [f"t{number}" for number in range(8)]

        def measure(subsets, effort=1.0, rng=rng):
            return {subset: {task: 0.1 * rng.normal() for task in subset} for subset in subsets}

        for known in promised:
            noise = dict.fromkeys(names, 0.1) if known else None
            promised[known].append(search(names, measure, budget=16, networks=3, seed=seed, noise=noise).gain)
    assert np.mean(promised[True]) < 0.6 * np.mean(promised[False]) < 0.1


def test_one_for_all_comes_first_and_no_more_is_spent_than_allowed() -> None:
    for budget in (1.0, 2.5, 7.0):
        names, measure, _, asked = planted(7, 2, 0.0, 0)
        found = search(names, measure, budget=budget, networks=3)
        assert asked[0] == ([frozenset(names)], 1.0)
        assert found.spent == sum(len(subsets) * effort for subsets, effort in asked) == int(budget)


def test_halving_spends_every_rung_alike_and_keeps_the_useful_ones() -> None:
    names, measure, truth, asked = planted(12, 3, 0.0, 0, harm=0.04)
    found = search(names, measure, budget=13, networks=3, efforts=(0.25, 1.0))
    (_, first), (looked, low), (kept, full) = asked
    assert (first, low, full) == (1.0, 0.25, 1.0)
    assert (len(looked), len(kept)) == (24, 6)
    assert set(kept) < set(looked)
    assert found.spent == 13.0
    assert set(found.measured) == {frozenset(names), *kept}
    best = {task: max(truth(s)[task] for s in looked if task in s) for task in names}
    # What is kept first serves its tasks best of all that was looked at.
    assert sum(truth(kept[0])[t] == best[t] for t in kept[0]) >= 1
    assert found.gain > choose(names, {}, 12).gain


def test_candidates_alone_are_measured() -> None:
    names, measure, _, asked = planted(5, 2, 0.0, 0)
    allowed = [("t0", "t2"), ("t1", "t3"), ("t0", "t1", "t3"), ("t0",)]
    found = search(names, measure, budget=50, networks=5, candidates=allowed)
    assert {s for subsets, _ in asked for s in subsets} == {frozenset(subset) for subset in allowed[:3]}
    assert found.network_of("t4") == frozenset(["t4"])
    assert found.spent == 3.0


def test_what_fails_is_left_out() -> None:
    names, measure, _, _ = planted(4, 2, 0.0, 0)
    good = frozenset(["t0", "t2"])

    def failing(subsets, effort=1.0):
        whole = measure(subsets, effort)
        return {
            s: {t: np.nan if len(s) == 2 and s != good else g for t, g in whole[s].items()}
            for s in subsets
            if len(s) < 4
        }

    found = search(names, failing, budget=50, networks=4)
    assert frozenset(names) in found.failed
    assert all(len(subset) == 3 or subset == good for subset in found.measured)
    assert found.spent == 11.0
    assert found.network_of("t0") == good


def test_one_and_two_tasks() -> None:
    def nothing(subsets, effort=1.0):
        raise AssertionError("one task shares with nobody")

    alone = search(["a"], nothing, budget=3, networks=1)
    assert alone.networks == (frozenset("a"),)
    assert (alone.gain, alone.spent) == (0.0, 0.0)
    two = search(["a", "b"], lambda s, effort=1.0: {s[0]: {"a": 0.3, "b": -0.1}}, budget=3, networks=2)
    assert two.networks == (frozenset("ab"), frozenset("b"))
    assert two.gains == {"a": 0.3, "b": 0.0}


def test_a_network_that_serves_nobody_best_is_not_kept() -> None:
    table = {frozenset("abc"): {"a": 0.1, "b": 0.1, "c": 0.1}, frozenset("ab"): {"a": 0.1, "b": 0.1}}
    assert choose("abc", table, 3).networks == (frozenset("abc"),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 0.5}, "budget=0.5: it counts trainings"),
        ({"budget": float("nan")}, "budget=nan"),
        ({"budget": float("inf")}, "budget=inf"),
        ({"networks": 0}, "networks=0: at least one"),
        ({"tasks": []}, "no tasks"),
        ({"tasks": ["a", "a"]}, "named twice"),
        ({"candidates": [["a", "z"]]}, "candidates name z: there are a, b, c"),
        ({"candidates": [["a", "b"]], "networks": 1}, "1 network cannot serve 3 tasks"),
        ({"efforts": (1.0, 0.5)}, "rise from above 0 to 1"),
        ({"efforts": ()}, "rise from above 0 to 1"),
        ({"efforts": (0.0, 1.0)}, "rise from above 0 to 1"),
        (
            {"measure": lambda subsets, effort=1.0: {s: {"a": 1.0} for s in subsets}},
            "gains of a for the subset a, b, c",
        ),
    ],
)
def test_what_makes_no_sense_is_named(options, said: str) -> None:
    def measure(subsets, effort=1.0):
        return {subset: dict.fromkeys(subset, 0.0) for subset in subsets}

    given = {"tasks": ["a", "b", "c"], "measure": measure, "budget": 4, "networks": 2, **options}
    tasks, measure = given.pop("tasks"), given.pop("measure")
    with pytest.raises(GroupingError, match=said):
        search(tasks, measure, **given)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(GroupingError, match="no task 'z': there are a, b"):
        choose("ab", {}, 2).network_of("z")


@pytest.mark.parametrize("name", ["taskonomy", "ettm1"])
@pytest.mark.parametrize("networks", [2, 3, 5])
def test_published_tables(name: str, networks: int) -> None:
    """With half, as many, twice as many subsets as tasks: better than one for all, and own networks for the hurt."""
    folder = os.environ.get("STEELYARD_DATA")
    if not folder:
        pytest.skip("STEELYARD_DATA names no folder of data sets")
    found = np.load(Path(folder) / "grouping_tables" / f"{name}.npz")
    count = found["subsets"].shape[1]
    tasks = [f"t{number}" for number in range(count)]

    def table(column: str) -> Table:
        rows = zip(found["subsets"].astype(bool), found[column], strict=True)
        return {
            frozenset(np.array(tasks)[held].tolist()): dict(
                zip(np.array(tasks)[held].tolist(), values[held].tolist(), strict=True)
            )
            for held, values in rows
        }

    validation, test = table("gain_validation"), table("gain_test")
    assert len(validation) == sum(1 for size in range(1, count + 1) for _ in combinations(tasks, size))

    def tested(grouping: Grouping) -> float:
        gains = [test[s][t] if len(s := grouping.network_of(t)) > 1 else 0.0 for t in tasks]
        return float(np.mean(gains))

    everything = frozenset(tasks)
    one = {everything: validation[everything]}
    free = max(tested(choose(tasks, one, 1)), tested(choose(tasks, one, networks)))
    measure = lambda subsets, effort=1.0: {s: validation[s] for s in subsets}  # noqa: E731
    means = [
        np.mean(
            [
                tested(search(tasks, measure, budget=b, networks=networks, seed=s, candidates=validation))
                for s in range(60)
            ]
        )
        for b in (count / 2, count, 2 * count)
    ]
    assert free < means[0] < means[1] < means[2]
