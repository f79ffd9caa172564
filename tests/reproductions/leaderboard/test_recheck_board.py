"""Rows stepped by another optimizer are trained again by it, also where no other row was drawn."""

import math

import pytest

from reproductions.leaderboard.made_up_board import made_up
from steelyard.reproductions.leaderboard.board_results import BoardRow, BoardSeed, BoardTask
from steelyard.reproductions.leaderboard.recheck_board import drawn, recheck
from steelyard.reproductions.leaderboard.time_limit import Deadline
from steelyard.reproductions.run_reproduction import Where
from study.in_process import InProcess, MadeUp


@pytest.mark.takes("a network of digits is trained for an epoch")
def test_a_row_by_sgd_alone():
    values = {"left": 0.1, "right": 0.1}
    chosen = {"arm": "equal", "method": "equal", "learning_rate": 0.04, "optimizer": "sgd"}
    seed = BoardSeed(values, values, 1.0, 8)
    row = BoardRow("equal, SGD", "optimizer", "losses", chosen, None, 0.1, None, {0: seed})
    file = made_up(tasks=tuple(values), seeds=(0,), epochs=1, rates=(0.0253, 0.008, 0.08), tuning_seeds=(10007, 10008))
    tasks = tuple(BoardTask(name, "accuracy", True, 1.0) for name in values)
    file = type(file)(**{**vars(file), "rows": (row,), "tasks": tasks})
    assert drawn([file], 1.0) == {"digits": [("equal, SGD", 0)]}
    engine = InProcess()
    (found,) = recheck(file, [("equal, SGD", 0)], Where(engine, 1), Deadline(math.inf))
    (trial,) = engine.trained
    assert (trial.learning_rate, trial.problem.partition("@")[0]) == (0.04, "digits(optimizer=sgd)")
    assert (found.row, found.said, found.agrees) == ("equal, SGD", "", False)
    assert 0 < found.difference < 1


def test_every_task_alone_at_its_own_rate_and_how_far_it_is():
    rates = {"left": 0.008, "right": 0.05}
    seed = BoardSeed({"left": 0.1, "right": 0.4}, {"left": 0.1, "right": 0.4}, 1.0, 8)
    row = BoardRow(
        "single-task", "single", "losses", {"arm": "single-task", "method": "single-task", "learning_rate": rates},
        None, 0.1, None, {0: seed},
    )  # fmt: skip
    file = made_up(tasks=tuple(rates), seeds=(0,), epochs=1, rates=(0.0253, 0.008, 0.08), tuning_seeds=(10007, 10008))
    tasks = tuple(BoardTask(name, "accuracy", True, 1.0) for name in rates)
    file = type(file)(**{**vars(file), "rows": (row,), "tasks": tasks})
    engine = MadeUp()
    (found,) = recheck(file, [("single-task", 0)], Where(engine, 1), Deadline(math.inf))
    assert {trial.tasks: trial.learning_rate for trial in engine.trained} == {("left",): 0.008, ("right",): 0.05}
    assert found.difference == pytest.approx(0.8)  # of the left: 0.5 now, 0.1 before
