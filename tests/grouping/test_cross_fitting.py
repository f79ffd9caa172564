"""Validation values that the choice of an epoch has not made better than they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from steelyard.grouping.cross_fitting import values_of
from steelyard.grouping.train_subset import changes
from steelyard.study.planning.plan import PlannedMetric, PlannedTask
from steelyard.study.trial import Curves, Result

ERROR = PlannedMetric("error", False, 0.0, False)
SCORE = PlannedMetric("score", True, None, False)


def plan_of(main: str | None = None, **metrics: PlannedMetric):
    return SimpleNamespace(tasks=tuple(PlannedTask(n, n, 0.01, (m,)) for n, m in metrics.items()), main=main)


def result(halves: dict, validation: dict | None = None, epoch: int = 1) -> Result:
    whole = {task: [sum(both) / 2 for both in of] for task, of in halves.items()} | (validation or {})
    return Result({}, {}, epoch, 1, 1.0, 1.0, 1.0, Curves({}, {}, whole, halves=halves))


def test_each_half_is_read_at_the_epoch_that_is_best_on_the_other() -> None:
    halves = {"a": [[0.5, 0.2], [0.1, 0.6], [0.3, 0.3]]}
    # The first half is best in epoch 2, the second in epoch 1.
    assert values_of(plan_of(a=ERROR), result(halves), ("a",)) == {"a": [0.5, 0.6]}
    higher = values_of(plan_of(a=SCORE), result(halves), ("a",))
    assert higher == {"a": [0.1, 0.2]}


def test_a_joint_network_has_one_epoch_for_all_and_a_main_task_decides_alone() -> None:
    halves = {"a": [[0.4, 0.4], [0.2, 0.2]], "b": [[0.1, 0.1], [0.3, 0.3]]}
    assert values_of(plan_of(a=ERROR, b=ERROR), result(halves), ("a", "b")) == {"a": [0.4, 0.4], "b": [0.1, 0.1]}
    assert values_of(plan_of("a", a=ERROR, b=ERROR), result(halves), ("a", "b")) == {"a": [0.2, 0.2], "b": [0.3, 0.3]}


def test_an_error_of_zero_does_not_outweigh_all_else() -> None:
    halves = {"a": [[0.0, 0.0], [0.1, 0.1]], "b": [[0.9, 0.9], [0.1, 0.1]]}
    assert values_of(plan_of(a=ERROR, b=ERROR), result(halves), ("a", "b"))["b"] == [0.1, 0.1]


def test_without_halves_it_is_the_value_at_the_chosen_epoch() -> None:
    plan = plan_of(a=ERROR, b=ERROR)
    assert values_of(plan, result({}, {"a": [0.5, 0.3, 0.4]}, epoch=2), ("a",)) == {"a": [0.3]}
    # A task without them has a say in the epoch all the same.
    mixed = result({"a": [[0.2, 0.2], [0.3, 0.3]]}, {"b": [0.9, 0.1]}, epoch=2)
    assert values_of(plan, mixed, ("a", "b")) == {"a": [0.3, 0.3], "b": [0.1]}


def test_gains_compare_like_with_like() -> None:
    """A network with halves beside one without: both at their chosen epochs."""
    plan = plan_of(a=ERROR)
    found = changes(plan, [result({"a": [[0.2, 0.6]]})], {"a": [result({}, {"a": [0.8]})]})
    assert found["a"].shape == (1, 1)
    assert found["a"].mean() == pytest.approx(0.5)
    both = changes(plan, [result({"a": [[0.2, 0.6]]})], {"a": [result({"a": [[0.8, 0.8]]})]})
    assert both["a"].shape == (1, 2)
    assert both["a"][0, 0] - both["a"][0, 1] == pytest.approx(0.5)


def test_the_best_of_many_epochs_is_lucky_and_cross_fitted_values_are_not() -> None:
    plan, rng = plan_of(a=ERROR), np.random.default_rng(0)
    chosen, fitted = [], []
    for _ in range(400):
        found = result({"a": np.exp(0.3 * rng.normal(size=(20, 2)) - 0.045).tolist()})
        whole = found.curves.validation["a"]
        chosen.append(min(whole))
        fitted.append(np.mean(values_of(plan, found, ("a",))["a"]))
    assert np.mean(chosen) < 0.75
    assert np.mean(fitted) == pytest.approx(1.0, abs=0.03)
