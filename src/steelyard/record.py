"""What happened in the last call, for loggers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steelyard.observation import Seen


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

    def metrics(self) -> dict[str, float]:
        """A flat dict of numbers; waits for the device."""
        seen, names = self.seen, self.seen.tasks
        contribution = (self.weights * seen.losses).abs()
        share = contribution / contribution.sum().clamp(min=torch.finfo(torch.float64).tiny)
        columns = {"loss": seen.losses, "weight": self.weights, "share": share}
        if seen.squared_norms is not None:
            columns["norm"] = seen.norms
        result = {"loss/sum": float(seen.losses.sum())}
        for label, values in columns.items():
            result.update((f"{label}/{name}", value) for name, value in zip(names, values.tolist(), strict=True))
        if seen.gramian is not None:
            inverse = torch.where(seen.norms > 0, 1 / seen.norms, torch.zeros_like(seen.norms))
            cosines = (seen.gramian * inverse[:, None] * inverse).tolist()
            for i, first in enumerate(names):
                result.update((f"cosine/{first},{names[j]}", cosines[i][j]) for j in range(i + 1, len(names)))
        return result
