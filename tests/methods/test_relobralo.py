"""ReLoBRaLo."""

from __future__ import annotations

import pytest
import torch

import steelyard
from loss_sequences import SIZES, call, epochs_of_losses, run, softmax, task_names, tie


class Reference:
    """w ← α(ρ w + (1-ρ) b(first)) + (1-α) b(last), b = T softmax(L/(τ L')); 1, then b(last), in the first two steps."""

    def __init__(self, alpha: float, temperature: float, keep: float, seed: int) -> None:
        self.alpha, self.temperature, self.keep = alpha, temperature, keep
        self.generator = torch.Generator().manual_seed(seed)
        self.first, self.last, self.w, self.n = {}, {}, {}, {}

    def balanced(self, losses, before):
        ratios = {task: loss / before.get(task, loss) / self.temperature for task, loss in losses.items()}
        return {task: len(losses) * share for task, share in softmax(ratios).items()}

    def step(self, losses):
        rho = float(torch.rand((), dtype=torch.float64, generator=self.generator) < self.keep)
        from_last = self.balanced(losses, self.last)
        from_first = self.balanced(losses, self.first)
        weights = {}
        for task, loss in losses.items():
            n = self.n.get(task, 0)
            if n == 0:
                weights[task] = 1.0
                self.first[task] = loss
            elif n == 1:
                weights[task] = from_last[task]
            else:
                memory = rho * self.w[task] + (1 - rho) * from_first[task]
                weights[task] = self.alpha * memory + (1 - self.alpha) * from_last[task]
            self.n[task], self.last[task], self.w[task] = n + 1, loss, weights[task]
        return weights


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("alpha", "temperature", "keep"), [(0.999, 1.0, 0.999), (0.9, 0.1, 0.5), (0.5, 2.0, 0.0)])
def test_it_is_its_reference(alpha: float, temperature: float, keep: float, size: int, absent: bool) -> None:
    options = {"alpha": alpha, "temperature": temperature, "keep": keep}
    balancer = steelyard.make("relobralo", task_names(size), generator=torch.Generator().manual_seed(5), **options)
    tie(balancer, Reference(**options, seed=5), epochs_of_losses(size, absent=absent))


def test_weights_of_tasks_that_are_always_there_sum_to_their_number() -> None:
    for weights in run(steelyard.make("relobralo(keep=0.5)", task_names(4)), epochs_of_losses(4)):
        assert sum(weights.values()) == pytest.approx(4)


def test_zero_and_extreme_losses() -> None:
    balancer = steelyard.make("relobralo(temperature=0.01,keep=0.5)", task_names(3))
    for losses in ((0.0, 1e-12, 1e12), (5.0, 1e12, 1e-12), (0.0, 0.0, 0.0)):
        weights, _ = call(balancer, dict(zip(task_names(3), losses, strict=True)))
        assert sum(weights.values()) == pytest.approx(3)
