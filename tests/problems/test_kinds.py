"""The ready kinds of task take outputs and labels in the shapes in which they arrive."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steelyard.errors import ProblemError
from steelyard.problems import accuracy, binary, classification, regression, torchmetric


def test_classification_takes_labels_from_a_column_with_gaps():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    task = classification("kind", classes=4)
    labels = torch.tensor([0.0, 3.0, float("nan")])
    rows = task.labelled(labels)
    assert torch.equal(task.loss(logits[rows], labels[rows]), F.cross_entropy(logits[:2], torch.tensor([0, 3])))


@pytest.mark.parametrize("classes", [1, 0, -3, 2.0, True, None])
def test_fewer_classes_than_two_are_refused(classes):
    with pytest.raises(ProblemError, match=rf"task 'ill': classes={classes} must be .* >= 2.*: binary\('ill'\), or"):
        classification("ill", classes)
    assert classification("ill", np.arange(2).max() + 1).outputs == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_binary_takes_any_type_of_label(dtype):
    logits = torch.tensor([[0.3], [-2.0]])
    loss = binary("ill").loss(logits, torch.tensor([1, 0]).to(dtype))
    assert loss.item() == pytest.approx((F.softplus(torch.tensor(-0.3)) + F.softplus(torch.tensor(-2.0))).item() / 2)


def test_regression_never_broadcasts_a_column_against_a_row():
    outputs, targets = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2.0, 5.0])
    assert regression("size").loss(outputs, targets).item() == pytest.approx(4 / 3)
    with pytest.raises(RuntimeError):
        regression("size").loss(torch.zeros(3, 2), targets)


def test_accuracy_never_broadcasts_a_column_against_a_row():
    logits = torch.eye(3)
    assert accuracy.function(logits, torch.tensor([[0], [1], [0]])) == pytest.approx(2 / 3)
    with pytest.raises(ProblemError, match=r"one label for each of \[3\] predictions, got \[3, 2\]"):
        accuracy.function(logits, torch.zeros(3, 2))


def test_the_best_value_of_a_metric_that_sums_over_rows_is_not_that_of_a_chart():
    pytest.importorskip("torchmetrics")
    rows = torch.nn.functional.normalize(torch.rand(50, 4), dim=1)
    metric = torchmetric("CosineSimilarity")
    with pytest.raises(ProblemError, match=r"gives 50, and the best value by its charts is 1: .*reduction='mean'"):
        metric.function(rows, rows)
    assert torchmetric("CosineSimilarity", reduction="mean").function(rows, rows) == pytest.approx(1)
