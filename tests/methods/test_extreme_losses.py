"""Every loss-only method under losses that no formula likes: weights and value stay finite, whatever comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import steelyard
from loss_sequences import task_names
from steelyard.method_registry import methods

VARIANTS = [
    *[row.name for row in methods() if row.reads == "losses" and row.name != "famo"],
    "famo(form=lagged)",
    *[f"ema(variant={variant})" for variant in ("normalised", "to-max", "to-min", "to-mean", "proportional")],
    "ema(per=epoch,variant=normalised)",
    "softadapt(variant=normalised)",
    "softadapt(variant=loss-weighted,order=3)",
    "cov(epsilon=0)",
    "stch(warm_up=0,smoothness=0.01)",
    "igb(base_epoch=1)",
    "go4align(groups=5)",
    "relobralo(keep=0.2,temperature=0.01)",
]

REGIMES = {
    "1e-12": lambda size: torch.full((size,), 1e-12),
    "1e12": lambda size: torch.full((size,), 1e12),
    "1e-12 to 1e12": lambda size: 10 ** torch.linspace(-12, 12, size),
    "jumping": lambda size: 10 ** (24 * torch.rand(size) - 12),
    "equal": lambda size: torch.full((size,), 0.7),
    "zero": torch.zeros,
    "some zero": lambda size: torch.rand(size).clamp(min=0.5) - 0.5,
}


@pytest.mark.filterwarnings("ignore:the loss of .* is exactly 0, and whether its gradient")  # of validation, no graph
@pytest.mark.parametrize("method", VARIANTS)
def test_weights_and_value_stay_finite(method: str) -> None:
    torch.manual_seed(0)
    for regime, draw in REGIMES.items():
        for size in (1, 2, 50):
            where = f"{regime}, {size} tasks"
            # Rescaling divides by the sum of the weights: one that vanishes would show.
            scale = "sum" if size < 50 else "paper"
            balancer = steelyard.make(method, task_names(size), learning_rate=0.1, scale=scale)
            stay_finite(balancer, draw, where)


def stay_finite(balancer: steelyard.Balancer, draw: Callable[[int], Tensor], where: str) -> None:
    tasks = balancer.tasks
    for epoch in range(3):
        for step in range(2):
            numbers = draw(len(tasks)).double().requires_grad_()
            # A task comes and goes.
            losses = {task: numbers[k] for k, task in enumerate(tasks) if not (k == 1 and epoch == step)}
            value = balancer(losses)
            (gradient,) = torch.autograd.grad(value, numbers)
            assert value.isfinite(), where
            assert gradient.isfinite().all(), where
            assert balancer.last_weights.isfinite().all(), where
        if balancer.needs_validation:
            balancer.observe(validation=dict(zip(tasks, draw(len(tasks)), strict=True)))
        balancer.end_epoch()
