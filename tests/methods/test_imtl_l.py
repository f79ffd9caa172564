"""IMTL-L: a learnt scale for each loss."""

from __future__ import annotations

import math

import pytest
import torch

import steelyard
from learned_references import LearnedReference, external_weights
from loss_sequences import SIZES, call, epochs_of_losses, task_names, tie


def objective(s, loss):
    """e^s L - s."""
    return torch.exp(s) * loss - s


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("initial", [0.0, -1.0])
def test_it_is_its_reference(initial: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("imtl-l", task_names(size), initial=initial, learning_rate=0.05)
    tie(balancer, LearnedReference(objective, initial, 0.05), epochs_of_losses(size, absent=absent))


def test_its_fixed_point_is_log() -> None:
    """log L = min_s (e^s L - s) - 1, attained at the weight 1/L."""
    losses = {"task0": 0.2, "task1": 5.0}
    balancer = steelyard.make("imtl-l", task_names(2), learning_rate=0.05)
    for _ in range(800):
        weights, value = call(balancer, losses)
    by_log, log_value = call(steelyard.make("log(epsilon=0)", task_names(2)), losses)
    assert weights == pytest.approx(by_log, rel=1e-3)
    assert value == pytest.approx(log_value + 2, abs=1e-5)


def test_a_parameter_that_you_train_gets_the_gradient_of_the_objective() -> None:
    epochs = epochs_of_losses(1, low=-1, high=1)
    balancer = steelyard.make("imtl-l", task_names(1), learn="external")
    s, expected = 0.0, []
    for losses in [losses for epoch in epochs for losses in epoch]:
        expected.append(math.exp(s))
        s -= 0.1 * (math.exp(s) * losses["task0"] - 1)
    found = external_weights(balancer, "log_scale", epochs, 0.1)
    assert [weights["task0"] for weights in found] == pytest.approx(expected, rel=1e-4)
