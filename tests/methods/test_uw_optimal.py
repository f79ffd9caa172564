"""Uncertainty weighting with the uncertainties at their optimum: hard and soft."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, run, softmax, task_names, tie


class Optimal:
    """1/L"""

    def step(self, losses):
        return {task: 1 / loss for task, loss in losses.items()}


class SoftOptimal:
    """softmax((1/L)/τ)"""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def step(self, losses):
        return softmax({task: 1 / loss / self.temperature for task, loss in losses.items()})


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_hard_weights_are_the_reference(size: int, absent: bool) -> None:
    tie(steelyard.make("uw-o", task_names(size)), Optimal(), epochs_of_losses(size, absent=absent))


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_soft_weights_are_the_reference(temperature: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("uw-so", task_names(size), temperature=temperature)
    tie(balancer, SoftOptimal(temperature), epochs_of_losses(size, absent=absent, low=-1))


def test_hard_weights_have_the_gradient_of_log_losses() -> None:
    losses = epochs_of_losses(3)
    for found, expected in zip(
        run(steelyard.make("uw-o", task_names(3)), losses),
        run(steelyard.make("log(epsilon=0)", task_names(3)), losses),
        strict=True,
    ):
        assert found == pytest.approx(expected, rel=1e-14)


def test_soft_weights_go_to_the_smallest_losses() -> None:
    balancer = steelyard.make("uw-so", task_names(3))
    assert call(balancer, {"task0": 1e-12, "task1": 1.0, "task2": 1e12})[0] == {"task0": 1, "task1": 0, "task2": 0}
    assert call(balancer, {"task0": 0.0, "task1": 1.0, "task2": 0.0})[0] == {"task0": 0.5, "task1": 0, "task2": 0.5}
    assert call(balancer, {"task1": 3.0})[0] == {"task1": 1}


def test_a_loss_of_zero_has_the_hard_weight_one() -> None:
    assert call(steelyard.make("uw-o", task_names(2)), {"task0": 0.0, "task1": 4.0})[0] == {"task0": 1, "task1": 0.25}
