"""Improvable gap balancing, first version."""

from __future__ import annotations

import math

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, mean, run, softmax, task_names, tie


class Reference:
    """v = T softmax(L/base) over the tasks whose base epoch has ended, else 1; on log losses or on losses."""

    def __init__(self, base_epoch: int, log_losses: bool) -> None:
        self.base_epoch, self.log_losses = base_epoch, log_losses
        self.epoch, self.epochs, self.base = {}, {}, {}

    def step(self, losses):
        for task, loss in losses.items():
            self.epoch.setdefault(task, []).append(loss)
        gaps = {task: loss / self.base[task] for task, loss in losses.items() if task in self.base}
        v = dict.fromkeys(losses, 1.0)
        if gaps:
            v |= {task: len(gaps) * share for task, share in softmax(gaps).items()}
        if not self.log_losses:
            return v
        weights = {task: v[task] / loss for task, loss in losses.items()}
        return weights, sum(v[task] * math.log(loss) for task, loss in losses.items())

    def end_epoch(self):
        for task, seen in self.epoch.items():
            self.epochs[task] = self.epochs.get(task, 0) + 1
            if self.epochs[task] == self.base_epoch:
                self.base[task] = mean(seen)
        self.epoch = {}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("base_epoch", "log_losses"), [(2, True), (1, False), (3, True)])
def test_it_is_its_reference(base_epoch: int, log_losses: bool, size: int, absent: bool) -> None:
    balancer = steelyard.make("igb", task_names(size), base_epoch=base_epoch, log_losses=log_losses)
    tie(balancer, Reference(base_epoch, log_losses), epochs_of_losses(size, epochs=5, absent=absent))


def test_until_the_base_is_known_it_is_log() -> None:
    losses = epochs_of_losses(3, epochs=2)
    by_log = run(steelyard.make("log(epsilon=0)", task_names(3)), losses)
    for found, expected in zip(run(steelyard.make("igb", task_names(3)), losses), by_log, strict=True):
        assert found == pytest.approx(expected, rel=1e-14)


def test_the_larger_gap_weighs_more_whatever_the_units() -> None:
    balancer = steelyard.make("igb(base_epoch=1,log_losses=False,period=1)", task_names(2))
    call(balancer, {"task0": 1e-12, "task1": 1e12})
    weights, _ = call(balancer, {"task0": 1e-12, "task1": 0.5e12})
    assert weights["task0"] / weights["task1"] == pytest.approx(math.exp(0.5))


def test_zero_losses() -> None:
    balancer = steelyard.make("igb(base_epoch=1,period=1)", task_names(2))
    assert call(balancer, {"task0": 0.0, "task1": 1.0}) == ({"task0": 1.0, "task1": 1.0}, 0.0)
    weights, value = call(balancer, {"task0": 0.0, "task1": 1.0})
    assert (weights, value) == ({"task0": 1.0, "task1": 1.0}, 0.0)
