"""A metric on halves of the validation rows."""

from __future__ import annotations

import math

import pytest
import torch

from steelyard.problems import Metric, binary, classification, regression
from steelyard.problems.task import Task
from steelyard.study.training.evaluate import TaskOutputs
from steelyard.study.training.left_out_rows import on_halves
from steelyard.study.training.train import train
from study.training.small_problem import made, trial


def shown(outputs, targets) -> TaskOutputs:
    return TaskOutputs(torch.as_tensor(outputs), torch.as_tensor(targets), None)


def task_of(metric) -> Task:
    return Task("t", lambda outputs, targets: outputs.sum(), [Metric("m", metric, higher_is_better=True)])


def test_halves_have_labels_alike_and_every_row_is_in_one() -> None:
    targets = torch.tensor([3.0, 0.0, 2.0, 1.0, 5.0, 4.0, 6.0])
    seen = []
    on_halves(task_of(lambda outputs, there: seen.append(there) or 0.0), shown(targets[:, None], targets))
    assert [sorted(half.tolist()) for half in seen] == [[0.0, 2.0, 4.0, 6.0], [1.0, 3.0, 5.0]]


def test_rare_classes_are_in_both_halves() -> None:
    targets = torch.zeros(50)
    targets[[3, 17, 18, 40]] = 1.0
    values = on_halves(binary("t"), shown(torch.arange(50.0)[:, None], targets))
    assert len(values) == 2
    counts = []
    on_halves(
        task_of(lambda outputs, there: counts.append(there.sum().item()) or 0.0), shown(targets[:, None], targets)
    )
    assert counts == [2.0, 2.0]


@pytest.mark.parametrize(
    ("metric", "count"),
    [
        (lambda outputs, targets: 1 / 0, 8),
        (lambda outputs, targets: math.nan, 8),
        (lambda outputs, targets: 1.0, 3),
    ],
)
def test_where_a_half_has_no_value_there_is_none(metric, count: int) -> None:
    assert on_halves(task_of(metric), shown(torch.zeros(count, 1), torch.arange(float(count)))) == []


def test_labels_of_several_numbers_and_statistics_of_all_rows() -> None:
    sizes = task_of(lambda outputs, targets: float(len(targets)))
    assert on_halves(sizes, shown(torch.zeros(7, 2), torch.zeros(7, 2))) == [4.0, 3.0]
    assert on_halves(sizes, shown(torch.zeros(1, 2), torch.zeros(7, 2))) == []  # not one row of statistics per label


def test_a_training_keeps_them_epoch_by_epoch() -> None:
    found = train(trial(epochs=3), made(tasks=(classification("kind", 3), regression("size"))))
    assert set(found.curves.halves) == {"kind", "size"}
    for task, halves in found.curves.halves.items():
        assert [len(both) for both in halves] == [2, 2, 2]
        whole = found.curves.validation[task]
        if task == "kind":  # of an accuracy, 36 rows are two halves of 18
            assert [sum(both) / 2 for both in halves] == pytest.approx(whole)
