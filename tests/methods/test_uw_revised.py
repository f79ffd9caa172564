"""Revised uncertainty weighting."""

from __future__ import annotations

import math

import pytest
import torch

import steelyard
from learned_references import LearnedReference, external_weights
from loss_sequences import SIZES, call, epochs_of_losses, task_names, tie


def objective(s, loss):
    """L/(2σ²) + log(1 + σ²) with σ² = e^s."""
    variance = torch.exp(s)
    return loss / (2 * variance) + torch.log(1 + variance)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_it_is_its_reference(sigma: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("uw-revised", task_names(size), initial=sigma, learning_rate=0.05)
    reference = LearnedReference(objective, 2 * math.log(sigma), 0.05)
    tie(balancer, reference, epochs_of_losses(size, absent=absent))


def test_the_learnt_optimum_is_the_papers() -> None:
    """The derivative by σ², -L/(2σ⁴) + 1/(1 + σ²), vanishes at σ² = (L + √(L² + 8L))/4."""
    balancer = steelyard.make("uw-revised", task_names(2), learning_rate=0.05)
    losses = {"task0": 0.05, "task1": 8.0}
    for _ in range(500):
        weights, value = call(balancer, losses)
        assert value >= 0, "the objective is never negative"
    for task, loss in losses.items():
        variance = (loss + math.sqrt(loss**2 + 8 * loss)) / 4
        assert weights[task] == pytest.approx(1 / (2 * variance), rel=1e-3)


def test_small_losses_never_make_it_step_over_sigma_zero() -> None:
    balancer = steelyard.make("uw-revised", task_names(1), learning_rate=0.1)
    found = [call(balancer, {"task0": 1e-12})[0]["task0"] for _ in range(200)]
    assert found == sorted(found), "the weight of a tiny loss grows and grows"
    assert found[-1] < float("inf")


def test_a_parameter_that_you_train_gets_the_gradient_of_the_objective() -> None:
    epochs = epochs_of_losses(1, low=-1, high=1)
    balancer = steelyard.make("uw-revised", task_names(1), learn="external")
    s, expected = 0.0, []
    for losses in [losses for epoch in epochs for losses in epoch]:
        expected.append(0.5 * math.exp(-s))
        s -= 0.1 * (1 / (1 + math.exp(-s)) - 0.5 * math.exp(-s) * losses["task0"])
    found = external_weights(balancer, "log_variance", epochs, 0.1)
    assert [weights["task0"] for weights in found] == pytest.approx(expected, rel=1e-4)
