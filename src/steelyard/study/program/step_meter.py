"""Counts the steps of somebody else's loop, by the calls of its balancer, and what losses and weights did in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.float64 import double
from steelyard.errors import StateError


class StepMeter:
    """Sums over the steps since the last `take`; they stay on the balancer's device, so that no step waits for it.

    Time is taken from step to step, so that what lies between the last one and the report (validation) is not in it.
    """

    def __init__(self, balancer: Balancer) -> None:
        self.tasks, self.steps = list(balancer.tasks), 0
        self._clear()
        balancer.register_forward_hook(self._step, with_kwargs=True)

    def _clear(self) -> None:
        self.began, self.first, self.last, self.count = time.perf_counter(), 0.0, 0.0, 0
        self.sums: Tensor | None = None  # [4, T]: steps in which a task was there, losses, weights, squared weights

    def _step(self, balancer: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        if not balancer.training:
            return
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.steps, self.count = self.steps + 1, self.count + 1
        try:
            weights = balancer.last_weights.detach()
        except StateError:  # a step that was skipped for its losses
            return
        given: Mapping[str, Tensor | None] = arguments[0] if arguments else named["losses"]
        absent = torch.full((), torch.nan, dtype=torch.float64, device=weights.device)
        row = [absent if given.get(task) is None else _scalar(given[task], weights) for task in self.tasks]
        losses = torch.stack(row)
        there = ~losses.isnan()
        weights = weights.where(there, 0)
        step = torch.stack([there.double(), losses.nan_to_num(0), weights, weights.square()])
        self.sums = step if self.sums is None else self.sums + step

    def take(self) -> dict[str, Any]:
        """Means and counts of an epoch, and begin the next one."""
        sums = torch.zeros(4, len(self.tasks)) if self.sums is None else self.sums.cpu()
        count, loss, weight, square = sums
        spread = (square / count - (weight / count).square()).clamp(min=0).sqrt()
        if self.count > 1:
            seconds = (self.last - self.first) * self.count / (self.count - 1)
        else:
            seconds = time.perf_counter() - self.began
        found = {
            **{"losses": self._named(loss / count), "weights": self._named(weight / count)},
            **{"spreads": self._named(spread), "steps": self.count, "seconds": seconds},
        }
        self._clear()
        return found

    def _named(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.tasks, values.tolist(), strict=True))


def _scalar(loss: Any, like: Tensor) -> Tensor:
    value: Tensor = double(loss.detach()).to(like.device).reshape(())
    return value
