"""Sequences of losses, and the tie between a method and its readable reference.

A reference is a few lines of plain floats, written from the paper's formula. It has ``step(losses) -> weights`` (or
``(weights, value)`` where the objective's value is not ``Σ w L``), both by task name, and ``end_epoch()`` if it thinks
in epochs. It keeps what it remembers in dictionaries by task, so that an absent task is one that is not touched.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

from steelyard import Balancer

Losses = dict[str, float]

SIZES = (1, 2, 5)
"""Numbers of tasks that references are tied at."""


def task_names(count: int) -> list[str]:
    return [f"task{number}" for number in range(count)]


def epochs_of_losses(
    count: int,
    *,
    epochs: int = 4,
    steps: int = 5,
    seed: int = 0,
    absent: bool = False,
    low: float = -2,
    high: float = 2,
) -> list[list[Losses]]:
    """Falling losses about ``10^low`` to ``10^high``; with ``absent`` tasks join late, pause and miss an epoch."""
    source = random.Random(f"{seed} {count}")
    tasks = task_names(count)
    scale = {task: 10 ** source.uniform(low, high) for task in tasks}
    result = []
    for epoch in range(epochs):
        result.append([])
        for step in range(steps):
            losses = {task: scale[task] * source.uniform(0.2, 1.8) * 0.9 ** (epoch * steps + step) for task in tasks}
            if absent and count > 1:
                if epoch == 0:
                    del losses[tasks[-1]]  # joins late
                if epoch == 2 and count > 2:
                    del losses[tasks[1]]  # misses a whole epoch
                if step == 3 and len(losses) > 1:
                    del losses[tasks[0]]  # pauses now and then
            result[-1].append(losses)
    return result


def call(balancer: Balancer, losses: Losses, **arguments: Any) -> tuple[dict[str, float], float]:
    """Weights, as they arrive in the backward pass, and the value of one call."""
    leaves = {task: torch.tensor(loss, dtype=torch.float64, requires_grad=True) for task, loss in losses.items()}
    value = balancer(leaves, **arguments)
    value.backward()
    weights = {task: leaf.grad.item() for task, leaf in leaves.items()}
    last = dict(zip(balancer.tasks, balancer.last_weights.tolist(), strict=True))
    assert weights == {task: last[task] for task in losses}, "what backward sends is what last_weights says"
    return weights, value.item()


def run(balancer: Balancer, epochs: Iterable[Sequence[Losses]]) -> list[dict[str, float]]:
    """The weights of every step."""
    result = []
    for losses_of_epoch in epochs:
        result += [call(balancer, losses)[0] for losses in losses_of_epoch]
        balancer.end_epoch()
    return result


def tie(balancer: Balancer, reference: Any, epochs: Iterable[Sequence[Losses]], rel: float = 1e-10) -> None:
    """Hold every step's weights and value against the reference."""
    for epoch, losses_of_epoch in enumerate(epochs):
        for step, losses in enumerate(losses_of_epoch):
            where = f"epoch {epoch}, step {step}"
            expected = reference.step(dict(losses))
            weights, value = expected if isinstance(expected, tuple) else (expected, None)
            found, found_value = call(balancer, losses)
            assert found == pytest.approx(weights, rel=rel, abs=0), where
            if value is None:
                value = sum(weights[task] * losses[task] for task in losses)
            assert found_value == pytest.approx(value, rel=1e-10, abs=1e-10), where
        balancer.end_epoch()
        if hasattr(reference, "end_epoch"):
            reference.end_epoch()


def softmax(values: dict[str, float]) -> dict[str, float]:
    largest = max(values.values())
    powers = {task: math.exp(value - largest) for task, value in values.items()}
    return {task: power / sum(powers.values()) for task, power in powers.items()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
