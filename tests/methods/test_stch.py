"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

import math

import pytest
import torch

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, task_names, tie


class Reference:
    """Σ log L in a task's first warm_up + 1 epochs; then T μ log Σ (L/nadir)^{1/μ}, differentiated by autograd."""

    def __init__(self, smoothness: float, warm_up: int) -> None:
        self.mu, self.warm_up = smoothness, warm_up
        self.epochs, self.epoch, self.nadir = {}, {}, {}

    def step(self, losses):
        leaves = {task: torch.tensor(loss, dtype=torch.float64, requires_grad=True) for task, loss in losses.items()}
        value = sum((leaves[task].log() for task in losses if task not in self.nadir), torch.zeros(()))
        ready = [leaves[task] / self.nadir[task] for task in losses if task in self.nadir]
        if ready:
            value = value + len(ready) * self.mu * sum(relative ** (1 / self.mu) for relative in ready).log()
        value.backward()
        for task, loss in losses.items():
            self.epoch.setdefault(task, []).append(loss)
        return {task: leaf.grad.item() for task, leaf in leaves.items()}, value.item()

    def end_epoch(self):
        for task, seen in self.epoch.items():
            self.epochs[task] = self.epochs.get(task, 0) + 1
            if self.epochs[task] == self.warm_up + 1:
                self.nadir[task] = mean(seen)
        self.epoch = {}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("smoothness", "warm_up"), [(1.0, 4), (0.1, 1), (3.0, 0)])
def test_it_is_its_reference(smoothness: float, warm_up: int, size: int, absent: bool) -> None:
    balancer = steelyard.make("stch", task_names(size), smoothness=smoothness, warm_up=warm_up)
    tie(balancer, Reference(smoothness, warm_up), epochs_of_losses(size, epochs=7, absent=absent))


def test_the_warm_up_is_the_sum_of_logs() -> None:
    losses = epochs_of_losses(3, epochs=5)
    by_log = run(steelyard.make("log(epsilon=0)", task_names(3)), losses)
    for found, expected in zip(run(steelyard.make("stch", task_names(3)), losses), by_log, strict=True):
        assert found == pytest.approx(expected, rel=1e-14)


def test_as_smoothing_goes_only_the_worst_task_pulls() -> None:
    balancer = steelyard.make("stch(smoothness=1e-4,warm_up=0,period=1)", task_names(3))
    call(balancer, {"task0": 1.0, "task1": 2.0, "task2": 4.0})
    weights, value = call(balancer, {"task0": 0.5, "task1": 1.8, "task2": 3.0})
    assert weights == pytest.approx({"task0": 0.0, "task1": 3 / 1.8, "task2": 0.0})
    assert value == pytest.approx(3 * math.log(0.9))


def test_a_loss_of_zero_leaves_the_objective() -> None:
    balancer = steelyard.make("stch(warm_up=0,period=1)", task_names(2))
    assert call(balancer, {"task0": 0.0, "task1": 4.0}) == ({"task0": 1.0, "task1": 0.25}, math.log(4.0))
    assert call(balancer, {"task0": 0.0, "task1": 4.0}) == ({"task0": 1.0, "task1": 0.25}, 0.0)
    assert call(balancer, {"task0": 0.0, "task1": 0.0}) == ({"task0": 1.0, "task1": 1.0}, 0.0)
