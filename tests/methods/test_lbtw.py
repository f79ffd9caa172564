"""Loss-balanced task weighting."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, run, task_names, tie


class Reference:
    """w = (L / L in the task's first batch of the epoch)^α"""

    def __init__(self, alpha: float) -> None:
        self.alpha, self.first = alpha, {}

    def step(self, losses):
        for task, loss in losses.items():
            self.first.setdefault(task, loss)
        return {task: (loss / self.first[task]) ** self.alpha for task, loss in losses.items()}

    def end_epoch(self):
        self.first = {}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [0.5, 1.7])
def test_it_is_its_reference(alpha: float, size: int, absent: bool) -> None:
    balancer = steelyard.make("lbtw", task_names(size), alpha=alpha)
    tie(balancer, Reference(alpha), epochs_of_losses(size, absent=absent))


def test_the_first_batch_of_each_epoch_weighs_one_and_alpha_zero_is_the_plain_sum() -> None:
    found = run(steelyard.make("lbtw", task_names(3)), epochs_of_losses(3, steps=5))
    for first in found[::5]:
        assert first == dict.fromkeys(first, 1.0)
    for weights in run(steelyard.make("lbtw(alpha=0)", task_names(3)), epochs_of_losses(3)):
        assert weights == dict.fromkeys(weights, 1.0)


def test_scale_sum_gives_the_weights_of_the_authors_code() -> None:
    """There w ← T w / Σ w."""
    losses = epochs_of_losses(3, epochs=1)
    for plain, summed in zip(
        run(steelyard.make("lbtw", task_names(3)), losses),
        run(steelyard.make("lbtw", task_names(3), scale="sum"), losses),
        strict=True,
    ):
        assert summed == pytest.approx({task: 3 * w / sum(plain.values()) for task, w in plain.items()})


def test_zero_losses() -> None:
    balancer = steelyard.make("lbtw", task_names(2))
    call(balancer, {"task0": 0.0, "task1": 1.0})
    assert call(balancer, {"task0": 5.0, "task1": 0.0})[0] == {"task0": 1.0, "task1": 0.0}
