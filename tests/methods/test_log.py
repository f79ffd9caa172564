"""The sum of log losses."""

from __future__ import annotations

import math

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, run, task_names, tie
from steelyard.errors import LossError


class Reference:
    """Σ log(L + ε)"""

    def __init__(self, epsilon: float = 1e-8) -> None:
        self.epsilon = epsilon

    def step(self, losses):
        weights = {task: 1 / (loss + self.epsilon) for task, loss in losses.items()}
        return weights, sum(math.log(loss + self.epsilon) for loss in losses.values())


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("epsilon", [1e-8, 0.5])
def test_it_is_its_reference(epsilon: float, size: int, absent: bool) -> None:
    losses = epochs_of_losses(size, absent=absent)
    tie(steelyard.make("log", task_names(size), epsilon=epsilon), Reference(epsilon), losses)


def test_it_is_the_log_stage_in_front_of_equal() -> None:
    losses = epochs_of_losses(3)
    assert run(steelyard.make("log", task_names(3)), losses) == run(steelyard.make("log+equal", task_names(3)), losses)


def test_negative_losses_are_refused() -> None:
    with pytest.raises(LossError, match=r"'task1' is negative \(-0.5\)"):
        call(steelyard.make("log", task_names(2)), {"task0": 1.0, "task1": -0.5})
