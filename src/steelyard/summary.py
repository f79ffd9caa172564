"""The weights of a whole run in two numbers per task, and a balancer that holds them still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steelyard.constants import constant
from steelyard.errors import StateError
from steelyard.warn import warn

if TYPE_CHECKING:
    from steelyard.balancer import Balancer

SUMS = "weight_sums"
"""The declared value ``[3, T]`` behind a summary: the number of steps, ``Σ w`` and ``Σ w²``."""


def added(sums: Tensor, weights: Tensor) -> Tensor:
    """The sums once a step's weights ``[T]`` are counted; sums of powers, because ranks can average them."""
    return sums + weights.pow(constant((0.0, 1.0, 2.0), weights.device)[:, None])


@dataclass(frozen=True)
class WeightSummary:
    """The weights of a run, one entry per task; only steps in which the task was present count.

    Attributes:
        steps: optimizer steps (calls, where no optimizer is attached).
        means, deviations: of the multipliers of the task's gradient (`Balancer.last_weights`); NaN for a task that
            was never present. A deviation below 1e-6 of the mean is rounding, and given as 0.
    """

    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @classmethod
    def of(cls, tasks: tuple[str, ...], sums: Tensor) -> WeightSummary:
        """Read the sums ``[3, T]``; waits for the device."""
        steps, first, second = sums.unbind()
        means = first / steps
        variance = second / steps - means.square()
        deviations = torch.where(variance > 1e-12 * means.square(), variance, variance * 0).sqrt()
        return cls(tasks, tuple(map(round, steps.tolist())), tuple(means.tolist()), tuple(deviations.tolist()))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """``{task: {"steps": …, "mean": …, "deviation": …}}``."""
        rows = zip(self.tasks, self.steps, self.means, self.deviations, strict=True)
        return {task: {"steps": steps, "mean": mean, "deviation": sd} for task, steps, mean, sd in rows}

    def __str__(self) -> str:
        width = max(len("task"), *map(len, self.tasks))
        lines = [f"{'task':<{width}}  {'steps':>8}  {'mean weight':>11}  {'deviation':>9}"]
        for task, row in self.to_dict().items():
            lines.append(f"{task:<{width}}  {row['steps']:>8}  {row['mean']:>11.4g}  {row['deviation']:>9.3g}")
        return "\n".join(lines)


def freeze(balancer: Balancer) -> Balancer:
    """See `Balancer.freeze`."""
    from steelyard.methods.fixed import Fixed  # a method, which imports the balancer

    summary = balancer.summary()
    unseen = [task for task, steps in zip(summary.tasks, summary.steps, strict=True) if steps == 0]
    if unseen:
        raise StateError(
            f"there are no mean weights to freeze: {', '.join(unseen)} had no step since the start. Train first, or "
            "load the balancer's state"
        )
    if balancer.reads == "rows":
        warn(
            f"{balancer.name} may send the trunk a direction that no weights describe: its frozen weights are means, "
            "and leave that direction out"
        )
    priorities = balancer.priorities
    # Fixed multiplies the priorities in again: they also rule eval() and plain heads.
    weights = {
        task: mean / priorities[task] if priorities[task] else 1.0
        for task, mean in zip(summary.tasks, summary.means, strict=True)
    }
    return Fixed(
        balancer.tasks,
        weights=weights,
        priorities=priorities,
        heads=balancer.heads,
        on_nonfinite=balancer.on_nonfinite,
    )
