"""What happened in the last call, for loggers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steelyard.base.constants import constant, vector
from steelyard.base.observation import Seen

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Record:
    """One call: what was seen, and the weights ``[T]`` that came of it, both of the present tasks.

    Rows are let go: kept until the next call, they would be the largest thing in memory.
    """

    seen: Seen
    weights: Tensor
    index: Tensor | None

    def __post_init__(self) -> None:
        if self.seen.rows is not None:
            object.__setattr__(self, "seen", replace(self.seen, rows=None, features=None))

    def all_weights(self, tasks: int) -> Tensor:
        """``[T]`` over all tasks, 0 for the absent."""
        if self.index is None:
            return self.weights
        return self.weights.new_zeros(tasks).index_copy_(0, self.index, self.weights)

    def metrics(self, tasks: tuple[str, ...]) -> dict[str, float]:
        """A flat dict of numbers, with names among all of these tasks; waits for the device."""
        seen, names = self.seen, self.seen.tasks
        contribution = (self.weights * seen.losses).abs()
        share = contribution / contribution.sum().clamp(min=torch.finfo(torch.float64).tiny)
        columns = {"loss": seen.losses, "weight": self.weights, "share": share}
        if seen.squared_norms is not None:
            columns["norm"] = seen.norms
        result = {"loss" if "sum" in tasks else "loss/sum": float(seen.losses.sum())}
        for label, values in columns.items():
            result.update((f"{label}/{name}", value) for name, value in zip(names, values.tolist(), strict=True))
        if seen.gramian is not None:
            inverse = torch.where(seen.norms > 0, 1 / seen.norms, torch.zeros_like(seen.norms))
            cosines = (seen.gramian * inverse[:, None] * inverse).tolist()
            for i, first in enumerate(names):
                result.update((f"cosine/{first},{names[j]}", cosines[i][j]) for j in range(i + 1, len(names)))
        return result


@dataclass(frozen=True)
class Evaluated:
    """One call in ``eval()`` mode: the losses ``[T]`` of the present tasks, and their positions (``None``: all)."""

    tasks: tuple[str, ...]
    positions: list[int] | None
    losses: Tensor
    priorities: Mapping[str, float]

    def record(self) -> Record:
        """As the record of a call; made where it is asked for, since numbers from the host wait for the device."""
        device = self.losses.device
        weights = vector([self.priorities[name] for name in self.tasks], device)
        index = None if self.positions is None else torch.tensor(self.positions, device=device)
        return Record(Seen(self.tasks, self.losses, torch.ones_like(self.losses)), weights, index)


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
