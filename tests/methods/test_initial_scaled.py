"""Losses in units of their start."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, mean, task_names, tie


class Reference:
    """L / mean of the first n losses (n losses, or the first epoch's)"""

    def __init__(self, steps: int | None) -> None:
        self.steps, self.seen, self.closed = steps, {}, set()

    def step(self, losses):
        for task, loss in losses.items():
            if task not in self.closed:
                self.seen.setdefault(task, []).append(loss)
                if self.steps is not None and len(self.seen[task]) == self.steps:
                    self.closed.add(task)
        return {task: 1 / mean(self.seen[task]) for task in losses}

    def end_epoch(self):
        if self.steps is None:
            self.closed |= set(self.seen)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_it_is_its_reference(steps: int | None, size: int, absent: bool) -> None:
    losses = epochs_of_losses(size, absent=absent)
    tie(steelyard.make("initial-scale", task_names(size), steps=steps), Reference(steps), losses)


def test_a_loss_that_has_been_zero_so_far_has_no_scale_to_remove() -> None:
    balancer = steelyard.make("initial-scale(steps=2)", task_names(1))
    found = [call(balancer, {"task0": loss})[0]["task0"] for loss in (0.0, 0.0, 2.0, 5.0)]
    assert found == pytest.approx([1, 1, 3 / 2, 3 / 2])
