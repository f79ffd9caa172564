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
COST = PlannedMetric("cost", False, None, False)
ACCURACY = PlannedMetric("accuracy", True, 1.0, False)


def plan_of(main: str | None = None, choose: str = "best", **metrics: PlannedMetric):
    tasks = tuple(PlannedTask(n, n, 0.01, (m,)) for n, m in metrics.items())
    return SimpleNamespace(tasks=tasks, main=main, choose=choose)


def alike(*values: float) -> list[list[float]]:
    """Epochs in which both halves have one value."""
    return [[value, value] for value in values]


def result(halves: dict, validation: dict | None = None, epoch: int = 1) -> Result:
    whole = {task: [sum(both) / 2 for both in of] for task, of in halves.items()} | (validation or {})
    return Result({}, {}, epoch, 1, 1.0, 1.0, 1.0, Curves(whole, whole, whole, halves=halves))


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


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_what_an_error_of_zero_counts_as_has_the_unit_of_the_others(unit: float) -> None:
    """Half of the smallest other one: epoch 1 has a mean of √(0.5 · 3), epoch 2 of 1, in any unit."""
    halves = {"a": alike(0.0, unit, 4 * unit), "b": alike(3.0, 1.0, 4.0)}
    assert values_of(plan_of(a=ERROR, b=ERROR), result(halves), ("a", "b"))["b"] == [1.0, 1.0]
    halves["b"] = alike(1.5, 1.0, 4.0)
    assert values_of(plan_of(a=ERROR, b=ERROR), result(halves), ("a", "b"))["b"] == [1.5, 1.5]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        (SCORE, (0.4, -0.02, 0.5), 0.5),
        (SCORE, (0.4, 0.0, 0.5), 0.5),
        (SCORE, (-0.4, -0.02, -0.5), -0.02),
        (COST, (0.4, -0.02, 0.5), -0.02),
        (COST, (0.4, -0.02, -0.5), -0.5),
        (ERROR, (0.4, -0.02, 0.5), -0.02),
        (ERROR, (0.4, 0.0, 0.5), 0.0),
        (PlannedMetric("slope", True, 0.5, False), (0.4, -0.02, 0.55), 0.55),
    ],
)
def test_one_task_has_the_best_epoch_of_its_metric_s_own_order(metric, values, best, unit: float) -> None:
    """A half may have values that training refuses on all rows: of a kappa, chance takes some below zero."""
    if metric.ideal is not None:
        metric = PlannedMetric(metric.name, metric.higher_is_better, metric.ideal * unit, False)
    halves = {"a": alike(*(value * unit for value in values))}
    assert values_of(plan_of(a=metric), result(halves), ("a",)) == {"a": [best * unit] * 2}


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("low", [0.0, -1e-9, -0.02, -30.0])
def test_among_several_tasks_a_score_that_is_not_positive_is_the_worst(low: float, unit: float) -> None:
    halves = {"a": alike(0.4 * unit, low * unit, 0.5 * unit), "b": alike(0.2, 0.2, 0.2)}
    assert values_of(plan_of(a=SCORE, b=ERROR), result(halves), ("a", "b"))["a"] == [0.5 * unit] * 2
    # Others have their say: it is as bad as half of the worst that has a logarithm.
    halves["b"] = alike(0.2, 0.02, 0.2)
    assert values_of(plan_of(a=SCORE, b=ERROR), result(halves), ("a", "b"))["b"] == [0.02, 0.02]


def test_a_task_without_a_positive_value_leaves_the_epoch_to_the_others() -> None:
    halves = {"a": alike(-0.1, -0.3, 0.0), "b": alike(0.3, 0.1, 0.2)}
    for metric in (SCORE, COST):
        assert values_of(plan_of(a=metric, b=ERROR), result(halves), ("a", "b"))["b"] == [0.1, 0.1]


@pytest.mark.parametrize("metric", [ERROR, SCORE, COST, ACCURACY])
def test_networks_judged_at_their_last_epoch_are_read_there(metric: PlannedMetric) -> None:
    halves = {"a": [[0.1, 0.2], [0.9, 0.8], [0.4, 0.6]], "b": [[0.3, 0.2], [0.8, 0.7], [0.5, 0.4]]}
    last, plan = result(halves, epoch=3), plan_of(choose="last", a=metric, b=metric)
    assert values_of(plan, last, ("a", "b")) == {"a": [0.4, 0.6], "b": [0.5, 0.4]}
    without = result({}, {"a": [0.1, 0.2, 0.3]}, epoch=3)
    assert values_of(plan, without, ("a",)) == {"a": [0.3]}


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
