"""Metrics against scikit-learn and against values worked out by hand."""

import math

import pytest
import sklearn.metrics
import torch

from steelyard.problems import (
    ProblemError,
    accuracy,
    auc,
    average_precision,
    balanced_error,
    error_rate,
    mae,
    pearson,
    r2,
    rmse,
)


def test_accuracy_of_several_logits_and_of_a_single_one():
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    assert accuracy.function(logits, torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)
    assert error_rate.function(logits, torch.tensor([1, 0, 0])) == pytest.approx(1 / 3)
    assert accuracy.function(torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 1.0])) == 0.5


def test_class_labels_that_came_as_floating_point_count_the_same():
    logits = torch.eye(3)
    assert accuracy.function(logits, torch.tensor([0.0, 1.0, 1.0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_regression_metrics_agree_with_scikit_learn(shape):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(50, generator=generator) * 30 + 7
    outputs = (targets + torch.randn(50, generator=generator) * 5).reshape(shape)
    expected = sklearn.metrics
    flat = outputs.reshape(-1)
    assert r2.function(outputs, targets) == pytest.approx(expected.r2_score(targets, flat), abs=1e-6)
    assert rmse.function(outputs, targets) ** 2 == pytest.approx(expected.mean_squared_error(targets, flat), 1e-6)
    assert mae.function(outputs, targets) == pytest.approx(expected.mean_absolute_error(targets, flat), 1e-6)


def test_ranking_metrics_by_hand():
    # Of the 2 x 2 pairs (positive, negative), three are in the right order.
    outputs, targets = torch.tensor([[3.0], [1.0], [2.0], [0.0]]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert auc.function(outputs, targets) == pytest.approx(3 / 4)
    assert average_precision.function(outputs, targets) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_undefined_metrics_say_why():
    with pytest.raises(ProblemError, match="labels 0 and 1; the 3 labelled rows hold only 1"):
        auc.function(torch.zeros(3, 1), torch.ones(3))
    with pytest.raises(ProblemError, match="hold 1 to 2"):
        auc.function(torch.zeros(3, 1), torch.tensor([1, 2, 2]))
    with pytest.raises(ProblemError, match="all 3 targets are equal"):
        r2.function(torch.zeros(3, 1), torch.ones(3))


def test_a_diverged_network_has_a_nan_ranking_not_an_exception():
    assert math.isnan(auc.function(torch.tensor([[float("nan")], [0.0]]), torch.tensor([1.0, 0.0])))


def test_the_balanced_error_counts_both_kinds_alike_however_rare():
    targets = torch.tensor([1.0] * 2 + [0.0] * 8)
    outputs = torch.tensor([1.0, -1.0, *[-1.0] * 6, 1.0, 1.0])
    assert balanced_error.function(outputs[:, None], targets) == pytest.approx((1 / 2 + 2 / 8) / 2)
    assert balanced_error.function(torch.full((10, 1), -3.0), targets) == 0.5
    with pytest.raises(ProblemError, match="the 10 labelled rows hold one of them"):
        balanced_error.function(outputs, torch.zeros(10))


def test_the_correlation_is_pearsons_and_none_where_outputs_are_constant():
    generator = torch.Generator().manual_seed(0)
    targets, outputs = torch.randn(2, 40, generator=generator)
    expected = float(torch.corrcoef(torch.stack([outputs, targets]).double())[0, 1])
    assert pearson.function(outputs[:, None] * 1e-3 - 40, targets) == pytest.approx(expected, abs=1e-4)
    assert pearson.function(torch.full((40, 1), 0.1), targets) == 0
    with pytest.raises(ProblemError, match="all 40 targets are equal"):
        pearson.function(outputs, torch.ones(40))
