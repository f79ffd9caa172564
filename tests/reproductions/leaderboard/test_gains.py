"""Gains of one row over another on one problem, against what the study makes of the same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reproductions.leaderboard.made_up_board import made_up
from steelyard.reproductions.leaderboard.board_results import BoardTask
from steelyard.reproductions.leaderboard.gains import (
    below_trivial,
    far_below,
    gains,
    row_named,
    row_of_group,
    why_not_judged,
)
from steelyard.study.analysis.statistics import relative_changes


def problem_and_rows(**fields):
    problem = made_up(errors={"single-task": (0.2, 0.4), "equal": 0.3, "uw": (0.1, 0.4)}, **fields)
    return problem, row_named(problem, "uw"), row_of_group(problem, "single")


def values(problem, row, task):
    return [row.per_seed[seed].test[task] for seed in problem.seeds]


def test_gains_are_those_of_errors_in_the_mean_of_tasks():
    problem, uw, single = problem_and_rows()
    np.testing.assert_allclose(gains(problem, uw, single), 3 * [0.25])  # one error halved, the other as it was
    np.testing.assert_allclose(gains(problem, uw, row_of_group(problem, "sum")), 3 * [(2 / 3 - 1 / 3) / 2])
    assert gains(problem, uw, None).size == 0


def test_gains_are_the_studys_own_by_seed_with_their_correction():
    problem, uw, single = problem_and_rows(scatter=0.3)
    expected = [
        relative_changes(
            values(problem, uw, task), values(problem, single, task), higher_is_better=True, ideal=1.0
        )
        for task in "ab"
    ]  # fmt: skip
    np.testing.assert_allclose(gains(problem, uw, single), np.mean(expected, axis=0))
    assert np.std(gains(problem, uw, single)) > 0.05


def test_values_are_another_base():
    problem, uw, single = problem_and_rows()
    np.testing.assert_allclose(gains(problem, uw, single, "values"), 3 * [(0.9 / 0.8 - 1) / 2])
    unknown, uw, single = problem_and_rows(ideal=None)
    np.testing.assert_allclose(gains(unknown, uw, single), 3 * [(0.9 / 0.8 - 1) / 2])


def test_a_smaller_error_is_a_gain():
    problem, uw, single = problem_and_rows()
    tasks = tuple(BoardTask(name, "RMSE", False, 0.0) for name in "ab")
    turned = dataclasses.replace(problem, tasks=tasks)
    np.testing.assert_allclose(gains(turned, uw, single), 3 * [(1 - 0.9 / 0.8) / 2])
    np.testing.assert_allclose(gains(turned, uw, single, "values"), 3 * [(1 - 0.9 / 0.8) / 2])


def test_of_a_main_task_its_gain_alone_counts():
    problem, uw, single = problem_and_rows(main="a")
    np.testing.assert_allclose(gains(problem, uw, single), 3 * [0.5])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: dataclasses.replace(row, failed="loss is nan"), "failed: loss is nan"),
        (lambda row: dataclasses.replace(row, per_seed={0: row.per_seed[0]}), "1 of 3 seeds are there"),
        (
            lambda row: dataclasses.replace(
                row,
                per_seed=row.per_seed | {2: dataclasses.replace(row.per_seed[2], test={"a": float("nan"), "b": 0.5})},
            ),
            "no number for a in seed 2",
        ),
    ],
)
def test_what_failed_in_part_has_no_gain(change, said):
    problem, uw, single = problem_and_rows()
    assert why_not_judged(problem, uw) == ""
    broken = change(uw)
    assert why_not_judged(problem, broken) == said
    assert gains(problem, broken, single).size == 0
    assert gains(problem, single, broken).size == 0


def test_worse_than_predicting_the_mean_is_told_in_both_directions():
    problem, uw, _ = problem_and_rows()  # accuracies 0.9 and 0.6
    tasks = (BoardTask("a", "accuracy", True, 1.0, 0.89), BoardTask("b", "accuracy", True, 1.0, 0.61))
    assert below_trivial(dataclasses.replace(problem, tasks=tasks), uw) == ["b"]
    assert below_trivial(dataclasses.replace(problem, tasks=tasks, main="a"), uw) == []
    turned = (BoardTask("a", "RMSE", False, 0.0, 0.89), BoardTask("b", "RMSE", False, 0.0, None))
    assert below_trivial(dataclasses.replace(problem, tasks=turned), uw) == ["a"]


def test_far_below_is_far_below_the_middle_half():
    usual = [0.0, 0.01, 0.02, 0.03, 0.04]
    assert far_below(np.array([*usual, -0.2])) == [5]
    assert far_below(np.array([*usual, -0.08])) == []  # less than a tenth of Δm below the median
    assert far_below(np.array([0.0, 0.1, 0.2, 0.3, 0.4, -0.5, np.nan])) == []
    assert far_below(np.array([0.0, 0.0, -9.0])) == []
