"""What a problem refuses, and which labels count as missing."""

import pytest
import torch
from torch import nn

from steelyard.errors import UnknownNameError
from steelyard.problems import Data, Problem, ProblemError, Split, Task, accuracy, classification, regression, split
from steelyard.problems.problem import DIVISIONS

NAN = float("nan")


def some_split(rows=4, **targets):
    return Split(torch.zeros(rows, 2), targets or {"a": torch.zeros(rows)})


A = regression("a")


def problem(data=None, tasks=(A,), **options):
    data = data or Data(some_split(), some_split(), some_split())
    made = {"load": lambda: data, "trunk": lambda: nn.Identity(), "head": lambda task: nn.Linear(2, 1)}
    return Problem("p", tasks, **{**made, **options})


@pytest.mark.parametrize(
    ("targets", "missing", "expected"),
    [
        (torch.tensor([1.0, NAN, 0.0]), None, [True, False, True]),
        (torch.tensor([1, -1, 0]), None, [True, False, True]),
        (torch.tensor([1.0, -99.0, NAN]), -99, [True, False, True]),
        (torch.tensor([7, 255]), 255, [True, False]),
        (torch.tensor([True, False]), None, [True, True]),
        # several numbers per row: only a row without any label is unlabelled
        (torch.tensor([[1.0, NAN], [NAN, NAN]]), None, [True, False]),
    ],
)
def test_missing_labels(targets, missing, expected):
    task = Task("a", nn.functional.mse_loss, (accuracy,), missing=missing)
    assert task.labelled(targets).tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ()}, "no tasks"),
        ({"tasks": (regression("a"), regression("a"))}, "two tasks 'a': names must be unique"),
        ({"tasks": (regression("a", label="x"), regression("b", label="x"))}, "two tasks labelled 'x': labels must be"),
        ({"tasks": (regression("a"), regression("b", label="a"))}, "two tasks labelled 'a': labels must be"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"folds": 0}, "folds=0"),
        ({"epochs": True}, "epochs=True"),
        ({"summary": 3}, "a problem's summary is 3: give it as text"),
        ({"tasks": ("a",)}, r"tasks\[0\] is 'a', not a steelyard.problems.Task"),
        ({"trunk": nn.Identity()}, "trunk is a Identity, not a function that makes one: write trunk=lambda"),
        ({"head": nn.Linear(2, 1)}, "head is a Linear, not a function that makes one: write head=lambda task"),
        ({"optimizer": "adam"}, "optimizer is a str, not a function: write optimizer=lambda parameters"),
        ({"schedule": 0.5}, "schedule is a float, not a function: write schedule=lambda done"),
        ({"prepare": None}, "prepare is a NoneType, not a function: write prepare=lambda inputs"),
    ],
)
def test_a_problem_that_does_not_fit_together_is_refused(options, message):
    with pytest.raises(ProblemError, match=message):
        problem(**options)


def test_data_in_the_place_of_a_function_are_refused():
    with pytest.raises(ProblemError, match="load is a Data, not a function that returns a Data: write load=lambda"):
        problem(load=Data(some_split(), some_split(), some_split())).data()


@pytest.mark.parametrize("name", ["", "two words", "a=b", "a,b", "a;b", "f(x)"])
def test_task_names_that_the_command_line_could_not_write_are_refused(name):
    with pytest.raises(ProblemError, match="task name"):
        regression(name)


def test_a_task_without_metrics_is_refused():
    with pytest.raises(ProblemError, match="no metric"):
        Task("a", nn.functional.mse_loss, ())


def mean_error(outputs, targets):
    return 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"metrics": (mean_error,)},
            r"'a': metrics\[0\] is the function mean_error, .*Metric\(\"mean_error\"",
        ),
        (
            {"metrics": (accuracy, lambda o, t: 0.0)},
            r"'a': metrics\[1\] is <function .*Metric\(\"my metric\"",
        ),
        ({"metrics": mean_error}, r"metrics\[0\] is the function mean_error"),
        ({"metrics": "accuracy"}, r"metrics\[0\] is 'accuracy', not a Metric"),
        ({"metrics": None}, r"metrics\[0\] is None, not a Metric"),
        ({"loss": "mse"}, "'a': loss='mse' must be a function of"),
        ({"metrics": (accuracy, accuracy)}, "task 'a' has two metrics 'accuracy': names must be unique"),
        ({"name": 3}, "task name 3"),
        ({"label": "two\nlines"}, r"task 'a': label='two\\nlines' must be text of one line"),
        ({"label": 3}, "task 'a': label=3 must be text"),
        ({"equivalence": "1%"}, "equivalence='1%' must be a number"),
    ],
)
def test_a_task_that_does_not_fit_together_is_refused(options, message):
    with pytest.raises(ProblemError, match=message):
        Task(**{"name": "a", "loss": nn.functional.mse_loss, "metrics": (accuracy,), **options})


def test_one_metric_and_one_task_need_no_brackets():
    task = Task("a", nn.functional.mse_loss, accuracy)
    assert task.metrics == (accuracy,)
    assert problem(tasks=task).tasks == (task,)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (some_split(b=torch.zeros(4)), "test data: no targets for task 'a'"),
        (some_split(a=torch.zeros(3)), "3 targets of 'a' for 4 input rows"),
        (some_split(a=torch.full((4,), NAN)), "every label of 'a' is missing"),
        (some_split(a=torch.tensor([0.0, 1.0, float("inf"), 0.0])), "hold inf"),
        (some_split(a=[0.0, 0.0, 0.0, 0.0]), "are list, not a torch tensor"),
        (Split(torch.zeros(4, 2).to_sparse(), {"a": torch.zeros(4)}), r"inputs are sparse .*\.to_dense\(\)"),
        (Split(torch.zeros(4, 2, device="meta"), {"a": torch.zeros(4)}), "on the meta device"),
        (Split(torch.zeros(4, 2), {"a": torch.zeros(4, requires_grad=True)}), r"'a' require gradients.*\.detach\(\)"),
        (Split(torch.zeros(0, 2), {"a": torch.zeros(0)}), "no rows"),
        (Split((torch.zeros(4), torch.zeros(3)), {"a": torch.zeros(4)}), "4 and 3 rows"),
        (
            Split(torch.tensor([[0.0, 0.0], [0.0, NAN]]), {"a": torch.zeros(2)}),
            "in 1 of 2 rows, first at row 1, column 1",
        ),
    ],
)
def test_data_that_do_not_fit_the_tasks_are_refused(split, message):
    with pytest.raises(ProblemError, match=message):
        problem(Data(some_split(), some_split(), split)).data()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([-3, -1, 0, 2], "run from -3 to 2. Where -1 is a value, give them as fractions, with NaN"),
        ([-1, 1, -1, 1], "run from -1 to 1. Give labels -1 and 1 as 0 and 1"),
    ],
)
def test_a_value_that_would_count_as_a_missing_label_is_named(values, message):
    with pytest.raises(
        ProblemError, match=r"problem 'p': targets of 'a' are whole numbers, among which -1 .*" + message
    ):
        problem(Data(*[some_split(a=torch.tensor(values))] * 3)).data()
    for sound in (torch.tensor(values) + 3, torch.tensor(values).float(), torch.tensor([-1, 0, 1, 5])):
        problem(Data(*[some_split(a=sound)] * 3)).data()
    marked = Task("a", nn.functional.mse_loss, (accuracy,), missing=-9)
    problem(Data(*[some_split(a=torch.tensor(values))] * 3), tasks=marked).data()


def test_a_main_task_that_is_none_of_the_tasks_is_refused():
    with pytest.raises(UnknownNameError, match="unknown task of problem 'p': 'b'"):
        problem(main="b")


def test_a_place_to_read_gradients_that_is_none_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'features'"):
        problem(shared="feature")


def test_data_are_loaded_once():
    calls = []
    one = Problem(
        "p", [regression("a")], lambda: calls.append(1) or Data(*[some_split()] * 3), nn.Identity, nn.Identity
    )
    assert one.data() is one.data()
    assert calls == [1]


def test_a_seed_gets_its_fold_and_each_fold_is_loaded_and_checked_once():
    calls = []

    def load(fold):
        calls.append(fold)
        return Data(*[some_split(a=torch.full((4,), NAN if fold == 2 else float(fold)))] * 3)

    three = Problem("p", [A], load, nn.Identity, nn.Identity, folds=3)
    assert [float(three.data(seed).test.targets["a"][0]) for seed in (0, 1, 3, 4, 7)] == [0, 1, 0, 1, 1]
    assert calls == [0, 1]
    with pytest.raises(ProblemError, match="every label of 'a' is missing"):
        three.data(5)


def test_rows_are_divided_anew_for_every_seed_where_load_takes_one():
    """The same seed, the same rows; a problem that cannot says what to write."""
    x = torch.arange(40.0)[:, None]
    fixed = problem(load=lambda: split(x, {"a": x[:, 0]}))
    assert not fixed.redrawable
    with pytest.raises(ProblemError, match=r"load\(\) takes no seed. Write load=lambda seed=0: split"):
        fixed.redrawn()
    with pytest.raises(ProblemError, match="each seed tests on a fold of its own already"):
        Problem("p", [A], lambda fold, seed=0: None, nn.Identity, nn.Identity, folds=3).redrawn()

    able = problem(load=lambda seed=0: split(x, {"a": x[:, 0]}, seed=seed))
    anew = able.redrawn()
    assert anew is able.redrawn()
    tests = [set(anew.data(seed).test.targets["a"].tolist()) for seed in (0, 1, 2, 3, 4, 1)]
    assert tests[0] == set(able.data(3).test.targets["a"].tolist()), "one division without"
    assert tests[1] == tests[5]
    assert len({frozenset(test) for test in tests}) == 5
    assert len(anew._data) <= DIVISIONS


def test_an_unknown_task_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'left'"):
        problem(tasks=(classification("left", classes=2),)).task("letf")
