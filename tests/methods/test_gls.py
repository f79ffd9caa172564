"""The geometric mean of the losses."""

from __future__ import annotations

import math

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, task_names, tie


class Reference:
    """(Π L)^{1/T}; its derivative by L_k is the value over T L_k"""

    def step(self, losses):
        value = math.prod(losses.values()) ** (1 / len(losses))
        return {task: value / (len(losses) * loss) for task, loss in losses.items()}, value


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_its_reference(size: int, absent: bool) -> None:
    tie(steelyard.make("gls", task_names(size)), Reference(), epochs_of_losses(size, absent=absent))


def test_it_multiplies_extreme_losses_without_over_or_underflow() -> None:
    tasks = task_names(100)
    for size in (1e-300, 1e300):
        weights, value = call(steelyard.make("gls", tasks), dict.fromkeys(tasks, size))
        assert value == pytest.approx(size, rel=1e-10)
        assert list(weights.values()) == pytest.approx([0.01] * 100, rel=1e-10)


def test_it_leaves_out_a_loss_of_exactly_zero() -> None:
    balancer = steelyard.make("gls", task_names(3))
    weights, value = call(balancer, {"task0": 0.0, "task1": 4.0, "task2": 9.0})
    assert value == pytest.approx(6.0)
    assert weights == pytest.approx({"task0": 1 / 3, "task1": 6 / 8, "task2": 6 / 18})
    weights, value = call(balancer, dict.fromkeys(task_names(3), 0.0))
    assert value == 0
    assert weights == pytest.approx(dict.fromkeys(task_names(3), 1 / 3))
