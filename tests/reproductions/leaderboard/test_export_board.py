"""Rows of two runs in one file."""

import dataclasses
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reproductions.leaderboard.made_up_board import made_up
from steelyard.errors import LeaderboardError, StoreError
from steelyard.problems import load_problem
from steelyard.problems.metrics import auc, pearson, r2
from steelyard.reproductions.leaderboard.board_entries import BoardEntry, entries
from steelyard.reproductions.leaderboard.board_results import BoardSeed, read, write
from steelyard.reproductions.leaderboard.board_rows import row_of
from steelyard.reproductions.leaderboard.export_board import BY_CHANCE, _loss_scales, _seed, _without_rows, merged
from steelyard.reproductions.leaderboard.plan_board import BoardStudy, plan_problem
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.arm_networks import Network
from steelyard.study.planning.plan import PlannedMethod
from steelyard.study.trial import SINGLE_TASK, Curves
from study.made_up import SCORE
from study.made_up import plan as made_plan
from study.made_up import result as study_result


def with_value(problem, value):
    """The problem with this test value of task a in the first seed of its second row."""
    first, second, *rest = problem.rows
    seed, found = next(iter(second.per_seed.items()))
    changed = dataclasses.replace(found, test={**found.test, "a": value})
    second = dataclasses.replace(second, per_seed={**second.per_seed, seed: changed})
    return dataclasses.replace(problem, rows=(first, second, *rest))


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.1 + 0.2])
def test_the_same_results_are_the_same_again_also_where_they_are_no_numbers(tmp_path, value):
    problem = with_value(made_up(), value)
    write(problem, tmp_path / "digits.json")
    there = read(tmp_path / "digits.json")
    assert repr(merged(there, problem, {}, Path("digits.json"))) == repr(problem)


@pytest.mark.parametrize(("before", "now"), [(math.nan, 0.5), (0.5, math.nan), (0.5, math.nextafter(0.5, 1))])
def test_other_results_of_a_row_are_refused(before, now):
    name = made_up().rows[1].name
    with pytest.raises(LeaderboardError, match=f"other results of '{name}'"):
        merged(with_value(made_up(), before), with_value(made_up(), now), {}, Path("digits.json"))


def test_two_problems_whose_files_have_one_name_are_told_apart():
    with pytest.raises(LeaderboardError, match="problem digits in place of digits2"):
        merged(made_up(), made_up("digits2"), {}, Path("digits.json"))


def test_a_task_with_few_labels_alone_takes_as_many_steps_and_misses_the_others():
    (entry,) = entries(["synthetic-auxiliary"], quick=False)
    planned = plan_problem(entry, [row_of("single-task"), row_of("equal")], seeds=1)
    facts = _without_rows(planned).facts
    assert facts["missing_labels"] == pytest.approx((1 - 0.125) / 2)
    assert facts["train_rows"] == len(load_problem(entry.problem).data().train)
    assert {trial.tasks for trial in planned.plan.trials} == {("main",), ("auxiliary",), ("main", "auxiliary")}
    assert len({planned.plan.steps(trial) for trial in planned.plan.trials}) == 1


@pytest.mark.parametrize("short", [False, True])
def test_how_far_losses_are_apart_is_said_of_whole_curves_and_refused_of_short_ones(short):
    (entry,) = entries(["synthetic-auxiliary"], quick=False)
    plan = plan_problem(entry, [row_of("equal")], seeds=1).plan
    (trial,) = plan.trials
    study = BoardStudy(plan, {"equal": row_of("equal")})
    found = study_result(dict.fromkeys(trial.tasks, 0.5))
    losses = {} if short else {"main": [0.5, 0.1], "auxiliary": [2.0, 0.1]}
    found = replace(found, curves=Curves(losses, {}, found.curves.validation))
    refused = pytest.raises(StoreError, match="written with --short-curves, and how far losses are apart is told by")
    with refused if short else nullcontext():
        assert _loss_scales(study, TrialResults(plan, {trial: found}, {})) == {"loss_scales": 4.0}


APART = """
import torch
from torch import nn
from steelyard.problems import Problem, regression, split

x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
first = torch.arange(60) % 2 == 0
targets = {"a": x[:, 0].where(first, torch.nan), "b": x[:, 1].where(SECOND, torch.nan)}
problem = Problem(
    "apart", tasks=[regression("a"), regression("b")], load=lambda: split(x, targets),
    trunk=lambda: nn.Linear(3, 4), head=lambda task: nn.Linear(4, 1),
)
"""


@pytest.mark.parametrize(("second", "missing"), [("~first", 0.0), ("x[:, 2] > 0", 0.5)])
def test_tasks_that_share_no_rows_miss_no_labels(tmp_path, second, missing):
    """Half of the labels of either are there; where no row has two, nobody would have asked for the others."""
    (tmp_path / "apart.py").write_text(APART.replace("SECOND", second))
    entry = BoardEntry(str(tmp_path / "apart.py"), "made up", 1, "two tasks")
    facts = _without_rows(plan_problem(entry, [row_of("equal")], seeds=1)).facts
    assert facts["missing_labels"] == pytest.approx(missing, abs=0.15 if missing else 0.0)


@pytest.mark.parametrize("metric", [r2, auc, pearson])
def test_what_a_constant_reaches_is_what_the_metric_says_of_one(metric):
    targets = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    constant = torch.full_like(targets, float(targets.mean()))
    found = float(metric.function(constant[:, None], targets[:, None]))
    assert found == pytest.approx(BY_CHANCE[metric.name], abs=1e-12)


@pytest.mark.parametrize(("higher", "reached"), [(True, (3.0, 5.0)), (False, (1.0, 0.5))])
def test_what_was_reached_is_the_best_of_the_first_half_of_the_epochs_and_of_all(higher, reached):
    metric = dataclasses.replace(SCORE, higher_is_better=higher)
    plan = made_plan(("equal",), metrics=(("a", (metric,)),))

    def seed_of(curve):
        found = dataclasses.replace(study_result({"a": 0.7}, curve={"a": curve}), chosen_epoch=min(3, len(curve)))
        return _seed(plan, "equal", 0, [found])

    seed = seed_of([1.0, 3.0, 2.0, 5.0, 0.5])
    assert seed == BoardSeed({"a": 0.7}, {"a": 2.0}, 10.0, 20, {"a": reached})
    assert seed_of([1.0]).reached == {}


def test_a_task_that_only_helps_another_is_read_from_the_network_that_serves_it():
    name = "equal{left|right +left}"
    networks = (Network(("left",), ("left",)), Network(("left", "right"), ("right",)))
    made = made_plan((SINGLE_TASK, "equal"))
    made = dataclasses.replace(made, methods=(*made.methods, PlannedMethod(name, "sum", networks=networks)))
    found = [
        study_result({"left": 0.9}),
        study_result({"left": 0.5, "right": 0.7}, curve={"left": [1.0, 0.2], "right": [1.0, 0.5]}),
    ]
    seed = _seed(made, name, 0, found)
    assert seed.test == {"left": 0.9, "right": 0.7}
    assert seed.validation == {"left": 1.0, "right": 1.0}
    assert seed.reached == {"left": (1.0, 1.0), "right": (1.0, 1.0)}
