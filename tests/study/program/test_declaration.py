"""What a program says that it trains."""

import json

import pytest

from steelyard.errors import ProgramError, UnknownNameError
from steelyard.problems import accuracy
from steelyard.study.program.declaration import READY, DeclaredMetric, ProgramDeclaration, declare


def metrics(*given):
    return declare({"a": given if len(given) > 1 else given[0]}, epochs=1).tasks[0].metrics


def test_metrics_are_ready_ones_by_name_or_say_which_way_is_better():
    assert metrics("accuracy") == (DeclaredMetric("accuracy", True, 1.0, True),)
    assert metrics("perplexity:min") == (DeclaredMetric("perplexity", False),)
    assert metrics("miou : max : 1") == (DeclaredMetric("miou", True, 1.0),)
    assert metrics(accuracy, "loss:min") == (DeclaredMetric("accuracy", True, 1.0, True), DeclaredMetric("loss", False))


@pytest.mark.parametrize("name", READY)
def test_a_ready_one_has_the_direction_that_it_has_in_problems(name):
    (found,) = metrics(name)
    assert (found.higher_is_better, found.ideal) == (READY[name].higher_is_better, READY[name].ideal)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("miou", 'say which way is better, "miou:max" or "miou:min"'),
        ("miou:up", "say which way is better"),
        ("miou:max:one", "its best value 'one' is no number"),
        (3, "3 is no metric"),
        ((), "'a' has no metric"),
        (("loss:min", "loss:min"), "two metrics of one name"),
    ],
)
def test_a_metric_that_makes_no_sense_is_named(given, says):
    with pytest.raises(ProgramError, match=says):
        declare({"a": given}, epochs=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": {}}, "give each task its metric"),
        ({"tasks": ["a"]}, "give each task its metric"),
        ({"tasks": {"a b": "rmse"}}, "task name 'a b'"),
        ({"epochs": 0}, "epochs=0 must be"),
        ({"epochs": 2.0}, r"epochs=2\.0 must be"),
        ({"learning_rate": -1.0}, r"learning_rate=-1\.0 must be"),
    ],
)
def test_what_makes_no_sense_is_named(changes, says):
    with pytest.raises(ProgramError, match=says):
        declare(**{"tasks": {"a": "rmse"}, "epochs": 1, **changes})


def test_a_main_task_is_one_of_them():
    with pytest.raises(UnknownNameError, match="'c'"):
        declare({"a": "rmse", "b": "rmse"}, epochs=1, main="c")


def test_it_is_read_back_from_json():
    made = declare({"a": ("rmse", "mae"), "b": "loss:min"}, epochs=3, learning_rate=0.1, main="b")
    assert ProgramDeclaration.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_tasks_are_chosen_in_the_order_in_which_they_were_declared():
    made = declare({"a": "rmse", "b": "rmse", "c": "rmse"}, epochs=1)
    assert [task.name for task in made.only(["c", "a"])] == ["a", "c"]
