"""The best epoch is the one with the smallest geometric mean of validation errors."""

import dataclasses

import pytest
import torch
from torch import nn

from steelyard.errors import ProblemError, TrainingError
from steelyard.problems import Data, Metric, Problem, Split, Task, accuracy, classification, mae, r2, rmse
from steelyard.study.training import evaluate
from steelyard.study.training.evaluate import BestEpoch, TaskOutputs, measure, predict
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.trial import Trial


def task(name, metric):
    return Task(name, nn.functional.mse_loss, (metric,))


def chosen(tasks, epochs, rows=1000, main=None):
    best = BestEpoch(tasks, {t.name: rows for t in tasks}, main)
    for epoch, values in enumerate(epochs, start=1):
        best.better(epoch, dict(zip([t.name for t in tasks], values, strict=True)))
    return best.epoch


def test_geometric_mean_is_free_of_units():
    tasks = [task("a", accuracy), task("b", rmse)]
    # errors .2 x 5, .1 x 8, .05 x 20: the second is smallest, whatever unit RMSE has
    for unit in (1e-6, 1.0, 1e6):
        assert chosen(tasks, [(0.8, 5 * unit), (0.9, 8 * unit), (0.95, 20 * unit)]) == 2


def test_the_earlier_of_equal_epochs_wins():
    assert chosen([task("a", accuracy)], [(0.5,), (0.9,), (0.9,)]) == 2


def test_a_perfect_task_does_not_decide_alone():
    tasks = [task("a", accuracy), task("b", accuracy)]
    # a: one error, then none; b: 5 % errors, then 50 %
    assert chosen(tasks, [(0.99, 0.95), (1.0, 0.5), (0.99, 0.96)], rows=100) == 3
    assert chosen(tasks, [(1.0, 0.9), (1.0, 0.95)], rows=100) == 2


def test_a_main_task_decides_alone_where_it_is_learnt():
    tasks = [task("a", accuracy), task("b", accuracy)]
    epochs = [(0.7, 0.9), (0.8, 0.1)]
    assert [chosen(tasks, epochs, main=main) for main in (None, "a", "b", "elsewhere")] == [1, 2, 1, 1]
    with pytest.raises(TrainingError, match="accuracy of task 'b' on validation data is nan"):
        chosen(tasks, [(0.5, float("nan"))], main="a")


def test_the_last_epoch_is_taken_where_nothing_chooses():
    """Whatever its values are: one that no error can be made of as well."""
    best = BestEpoch([task("a", accuracy)], {"a": 100}, last=True)
    assert all(best.better(epoch, {"a": value}) for epoch, value in enumerate((0.9, 0.5, 0.7), start=1))
    assert best.epoch == 3


@pytest.mark.parametrize(
    ("epochs", "last", "patience", "expected"),
    [
        (7, False, 0, [1, 2, 3, 4, 5, 6, 7]),
        (7, True, 2, [1, 2, 3, 4, 5, 6, 7]),
        (7, True, 0, [1, 3, 5, 7]),
        (8, True, 0, [1, 2, 5, 8]),
        (5, True, 0, [1, 3, 5]),
        (4, True, 0, [1, 2, 3, 4]),
        (1, True, 0, [1]),
    ],
)
def test_a_curve_that_chooses_nothing_has_so_many_points(monkeypatch, epochs, last, patience, expected):
    monkeypatch.setattr(evaluate, "POINTS", 4)
    trial = Trial("p", "equal", ("a",), 0, (("a", 1.0),), epochs, 8, patience=patience)
    assert sorted(evaluate.asked(trial, last)) == expected
    for more in range(1, 200):
        assert not last or patience or len(evaluate.asked(dataclasses.replace(trial, epochs=more), last)) <= 4


def test_without_an_ideal_the_direction_counts():
    higher = Metric("score", None, higher_is_better=True)
    lower = Metric("cost", None, higher_is_better=False)
    assert chosen([task("a", higher)], [(1.0,), (3.0,), (2.0,)]) == 2
    assert chosen([task("a", lower)], [(2.0,), (3.0,), (1.0,)]) == 3
    with pytest.raises(TrainingError, match="give the metric an ideal="):
        chosen([task("a", higher)], [(-1.0,)])


def test_a_metric_that_is_not_finite_says_so():
    with pytest.raises(TrainingError, match="on validation data is nan: training diverged, or the metric is not"):
        chosen([task("a", accuracy)], [(float("nan"),)])


def test_prediction_in_batches_is_in_order_and_in_evaluation_mode():
    class Network(nn.Module):
        def forward(self, inputs):
            assert not self.training
            return {"a": inputs[0] * 2 + inputs[1]}, inputs

    rows = torch.arange(23.0)[:, None]
    split = Split((rows, rows), {"a": rows})
    problem = Problem("p", [task("a", rmse)], lambda: Data(split, split, split), nn.Identity, nn.Identity)
    network = Network()
    assert torch.equal(
        predict(network, problem, RowsOnDevice(split, problem.tasks), batch_size=2)["a"].outputs, rows * 3
    )
    assert network.training


class Doubled(nn.Module):
    def forward(self, inputs):
        return {"a": inputs * 2}, inputs


def test_rows_without_a_label_are_not_measured():
    inputs = torch.eye(3)
    split = Split(inputs, {"a": torch.tensor([1, -1, 2])})
    problem = Problem("p", [classification("a", 3)], lambda: Data(split, split, split), nn.Identity, nn.Identity)
    outputs, targets, _ = predict(Doubled(), problem, RowsOnDevice(split, problem.tasks), batch_size=1)["a"]
    assert torch.equal(outputs, 2 * inputs[[0, 2]])
    assert targets.tolist() == [1, 2]


def test_statistics_are_taken_batch_by_batch_of_labelled_rows_and_stand_in_for_outputs():
    batches = []

    def statistics(outputs, targets):
        batches.append(len(outputs))
        return torch.stack([(outputs - targets).abs().sum(1), torch.full((len(outputs),), 5.0)], dim=1)

    mean = Metric("error", lambda seen, targets: float(seen[:, 0].sum() / seen[:, 1].sum()), False, ideal=0.0)
    rows = torch.arange(35.0).reshape(7, 5)
    targets = rows.clone()
    targets[2] = torch.nan
    split = Split(rows, {"a": targets})
    tasks = [Task("a", nn.functional.mse_loss, (mean,), outputs=5, statistics=statistics)]
    problem = Problem("p", tasks, lambda: Data(split, split, split), nn.Identity, nn.Identity)
    shown = predict(Doubled(), problem, RowsOnDevice(split, problem.tasks), batch_size=2)["a"]
    assert batches == [3, 3]  # of 4 and 3 rows, one of them without a label
    labelled = rows[[0, 1, 3, 4, 5, 6]]
    assert torch.equal(shown.targets, labelled)
    assert measure(tasks[0], shown, "test") == [pytest.approx(float(labelled.mean()))]


@pytest.mark.parametrize(
    "metric", [r2, Metric("broken", lambda o, t: {}["key"], True), Metric("no number", lambda o, t: None, True)]
)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_metric_that_fails_names_itself_its_task_and_the_part(metric, place, part):
    metrics = [mae, mae]
    metrics[place] = metric
    shown = TaskOutputs(torch.zeros(4, 1), torch.ones(4), None)
    with pytest.raises(ProblemError, match=rf"^{metric.name} of task 'a' on the {part} data: "):
        measure(Task("a", nn.functional.mse_loss, tuple(metrics)), shown, part)
    found = measure(Task("a", nn.functional.mse_loss, tuple(metrics)), shown, part, only_main=True) if place else [1.0]
    assert found == [1.0]


def test_the_loss_of_a_split_is_the_mean_over_its_labelled_rows():
    targets = torch.tensor([1, 0, -1, 2, 2])
    split = Split(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), {"a": targets})
    task = classification("a", 3)
    problem = Problem("p", [task], lambda: Data(split, split, split), nn.Identity, nn.Identity)
    shown = predict(Doubled(), problem, RowsOnDevice(split, problem.tasks), batch_size=1, losses=True)["a"]
    rows = [0, 1, 3, 4]
    torch.testing.assert_close(shown.loss, task.loss(2 * split.inputs[rows], targets[rows]))
    assert predict(Doubled(), problem, RowsOnDevice(split, problem.tasks), batch_size=1)["a"].loss is None
