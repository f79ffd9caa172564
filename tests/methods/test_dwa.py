"""Dynamic weight averaging."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, softmax, task_names, tie
from steelyard.errors import LossError


class Reference:
    """w = T softmax(r/τ), r = mean loss of the last epoch / of the one before, over the epochs that saw the task."""

    def __init__(self, temperature: float = 2.0) -> None:
        self.temperature, self.epoch, self.means = temperature, {}, {}

    def step(self, losses):
        for task, loss in losses.items():
            self.epoch.setdefault(task, []).append(loss)
        rates = {}
        for task in losses:
            past = self.means.get(task, [])
            rates[task] = past[-1] / past[-2] if len(past) >= 2 else 1.0
        share = softmax({task: rate / self.temperature for task, rate in rates.items()})
        return {task: len(losses) * share[task] for task in losses}

    def end_epoch(self):
        for task, seen in self.epoch.items():
            self.means.setdefault(task, []).append(mean(seen))
        self.epoch = {}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [2.0, 0.1])
def test_it_is_its_reference(temperature: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("dwa", task_names(size), temperature=temperature)
    tie(balancer, Reference(temperature), epochs_of_losses(size, epochs=6, absent=absent))


def test_weights_are_one_in_the_first_two_periods_then_move() -> None:
    found = run(steelyard.make("dwa", task_names(3)), epochs_of_losses(3, epochs=3, steps=5))
    assert all(weights == pytest.approx(dict.fromkeys(weights, 1.0)) for weights in found[:10])
    assert found[10] != pytest.approx(found[0], rel=1e-3)


def test_a_period_in_steps_needs_no_epochs() -> None:
    epochs = epochs_of_losses(2, epochs=6, steps=4)
    by_epoch = run(steelyard.make("dwa", task_names(2)), epochs)
    balancer = steelyard.make("dwa(period=4)", task_names(2))
    assert [call(balancer, losses)[0] for epoch in epochs for losses in epoch] == by_epoch


def test_a_mean_loss_of_zero_counts_as_standing_still() -> None:
    balancer = steelyard.make("dwa(period=1)", task_names(2))
    for loss in (0.0, 3.0, 3.0):
        weights, _ = call(balancer, {"task0": loss, "task1": 1.0})
    assert weights == pytest.approx({"task0": 1.0, "task1": 1.0})


def test_negative_losses_are_refused() -> None:
    with pytest.raises(LossError, match="'task0' is negative"):
        call(steelyard.make("dwa", task_names(1)), {"task0": -1.0})
