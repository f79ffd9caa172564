"""FAMO in its three uses: losses shown after the step, recomputed by an attached optimizer, and lagged."""

from __future__ import annotations

import random

import pytest
import torch

import steelyard
from helpers import TwoLayer
from loss_sequences import SIZES, call, epochs_of_losses, task_names, tie
from steelyard.errors import LossError, MissingInputError

RATE, DECAY = 0.025, 1e-3


class Reference:
    """Straight from the paper's algorithm: autograd through the softmax, and torch's Adam (one per task) on ξ."""

    def __init__(self, minimum: float = 0.0, epsilon: float = 1e-8, decay: float = DECAY) -> None:
        self.minimum, self.epsilon, self.decay = minimum, epsilon, decay
        self.xi, self.adam, self.log_before = {}, {}, {}

    def excess(self, loss):
        return loss - self.minimum + self.epsilon

    def z(self, tasks):
        for task in tasks:
            if task not in self.xi:
                self.xi[task] = torch.zeros((), dtype=torch.float64, requires_grad=True)
                self.adam[task] = torch.optim.Adam([self.xi[task]], lr=RATE, weight_decay=self.decay)
        return torch.stack([self.xi[task] for task in tasks]).softmax(0)

    def step(self, losses):
        leaves = torch.tensor(list(losses.values()), dtype=torch.float64, requires_grad=True)
        z, D = self.z(losses).detach(), self.excess(leaves)
        c = 1 / (z / D).sum().detach()
        value = c * (z * D.log()).sum()
        (weights,) = torch.autograd.grad(value, leaves)
        self.log_before |= dict(zip(losses, D.detach().log(), strict=True))
        return dict(zip(losses, weights.tolist(), strict=True)), value.item()

    def after(self, losses):
        tasks = list(losses)
        new = {task: self.excess(torch.tensor(loss, dtype=torch.float64)).log() for task, loss in losses.items()}
        delta = torch.stack([self.log_before[task] - new[task] for task in tasks])
        gradients = torch.autograd.grad(self.z(tasks), [self.xi[task] for task in tasks], grad_outputs=delta)
        for task, gradient in zip(tasks, gradients, strict=True):
            self.xi[task].grad = gradient
            self.adam[task].step()


class Lagged(Reference):
    """The losses of the next step that has them, over the steps until then, stand for the losses after this one."""

    def __init__(self, **options: float) -> None:
        super().__init__(**options)
        self.steps, self.seen = 0, {}

    def step(self, losses):
        known = [task for task in losses if task in self.log_before]
        if known:
            z = dict(zip(losses, self.z(losses).tolist(), strict=True))
            new = {task: torch.tensor(self.excess(loss), dtype=torch.float64).log() for task, loss in losses.items()}
            delta = {task: (self.log_before[task] - new[task]) / (self.steps - self.seen[task]) for task in known}
            self.log_before |= {task: delta[task] + new[task] for task in known}
            # A task without a past moved like the others.
            average = sum(z[task] * delta[task] for task in known) / sum(z[task] for task in known)
            self.log_before |= {task: average + new[task] for task in losses if task not in known}
            self.after(losses)
        self.seen |= dict.fromkeys(losses, self.steps)
        self.steps += 1
        return super().step(losses)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"minimum": 1e-3, "epsilon": 0.01, "decay": 0.1}])
def test_with_the_losses_after_each_step_it_is_its_reference(options: dict, size: int, absent: bool) -> None:
    source = random.Random(1)
    balancer, reference = steelyard.make("famo", task_names(size), **options), Reference(**options)
    for losses in [losses for epoch in epochs_of_losses(size, absent=absent, low=-1) for losses in epoch]:
        weights, value = reference.step(losses)
        found, found_value = call(balancer, losses)
        assert found == pytest.approx(weights, rel=1e-10)
        assert found_value == pytest.approx(value, rel=1e-10, abs=1e-10)
        assert sum(found.values()) == pytest.approx(1.0)
        after = {task: loss * source.uniform(0.7, 1.1) for task, loss in losses.items()}
        reference.after(after)
        balancer.observe(after={task: torch.tensor(loss, dtype=torch.float64) for task, loss in after.items()})


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_lagged_form_is_its_reference(size: int, absent: bool) -> None:
    # Adam divides a slope by its own size: where the slope is a difference of nearly equal numbers, roundings grow.
    balancer = steelyard.make("famo(form=lagged)", task_names(size))
    tie(balancer, Lagged(), epochs_of_losses(size, absent=absent), rel=1e-9)


def test_an_attached_optimizer_recomputes_the_losses_of_the_same_batch() -> None:
    """Five steps of a real network end at the parameters of the authors' loop, written out on a twin."""
    scales = {"left": 1.0, "right": 30.0, "depth": 0.02}
    ours, theirs = TwoLayer(scales), TwoLayer(scales)

    def parameters(network: TwoLayer) -> list[torch.nn.Parameter]:
        return network.trunk_parameters() + network.head_parameters()

    optimizer = torch.optim.SGD(parameters(ours), lr=0.05)
    balancer = steelyard.make("famo", list(scales))
    balancer.attach(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        balancer(ours.losses()[0], again=lambda params=None, batch=None: ours.losses()[0]).backward()
        optimizer.step()

    sgd = torch.optim.SGD(parameters(theirs), lr=0.05)
    reference = Reference()
    for _ in range(5):
        losses = theirs.losses()[0]
        stacked = torch.stack(list(losses.values()))
        z, D = reference.z(losses).detach(), stacked + 1e-8
        sgd.zero_grad()
        ((D.log() * z).sum() / (z / D).sum().detach()).backward()
        reference.log_before = dict(zip(losses, D.detach().log(), strict=True))
        sgd.step()
        reference.after({task: loss.item() for task, loss in theirs.losses()[0].items()})

    for mine, other in zip(parameters(ours), parameters(theirs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-12)
    assert balancer.logits.tolist() == pytest.approx([xi.item() for xi in reference.xi.values()], rel=1e-9)


def test_the_task_that_a_step_helped_least_gains_weight() -> None:
    balancer = steelyard.make("famo", task_names(2))
    call(balancer, {"task0": 1.0, "task1": 1.0})
    balancer.observe(after={"task0": torch.tensor(0.5), "task1": torch.tensor(0.99)})
    weights, _ = call(balancer, {"task0": 1.0, "task1": 1.0})
    assert weights["task1"] > 0.5 > weights["task0"]


def test_a_step_that_nobody_looked_back_at_is_an_error_that_shows_the_line() -> None:
    balancer = steelyard.make("famo", task_names(2))
    call(balancer, {"task0": 1.0, "task1": 1.0})
    with pytest.raises(MissingInputError, match=r"balancer.observe\(after=losses\).*again="):
        call(balancer, {"task0": 1.0, "task1": 1.0})
    with pytest.raises(MissingInputError, match="famo has no use for losses after the step"):
        steelyard.make("famo(form=lagged)", ["task0"]).observe(after={"task0": torch.tensor(1.0)})


def test_losses_below_the_minimum_are_refused() -> None:
    with pytest.raises(LossError, match=r"a loss is 0.25 where minimum is 0.5 and epsilon 1e-08: lower the minimum"):
        call(steelyard.make("famo(minimum=0.5)", task_names(2)), {"task0": 1.0, "task1": 0.25})
    with pytest.raises(LossError, match="a loss is 0 where minimum is 0 and epsilon 0"):
        call(steelyard.make("famo(epsilon=0)", task_names(2)), {"task0": 1.0, "task1": 0.0})


@pytest.mark.parametrize("stage", ["initial-scale(steps=1)", "initial-scale(steps=3)", "ema-scale(beta=0.5)"])
def test_behind_a_stage_the_loss_after_the_step_is_compared_with_the_same_loss_before(stage: str) -> None:
    """Both fall by an eighth, in other units: nothing is to move."""
    balancer = steelyard.make(f"{stage}+famo(decay=0,epsilon=0)", ["a", "b"])
    for size in (3.0, 2.0, 2.5):
        both = torch.tensor([size, 128 * size], dtype=torch.float64, requires_grad=True)
        losses = {"a": both[0], "b": both[1]}
        balancer(losses)
        balancer.observe(after={name: 0.875 * loss.detach() for name, loss in losses.items()})
        assert balancer.logits.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
