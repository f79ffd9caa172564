"""How the tasks' gradients get along: the numbers of one batch, or means over several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DOMINANCE = 10.0
"""Ratio of gradient norms above which the longer one is said to dominate."""
CONFLICT = -0.1
"""Cosine below which two tasks are said to conflict; above, noise of one batch is as good a reason."""


@dataclass(frozen=True, eq=False, repr=False)
class Measurements:
    """How the tasks' gradients get along, in numbers.

    Attributes:
        tasks, absent: names of the tasks that were there, in order, and of those that were not.
        place: where gradients were read: ``"features"``, ``"trunk"``, ``"last"`` (the last layers), ``"layers"``.
        losses, norms: ``[T]`` float64, and the norms of the task gradients ``g_k``.
        cosines: ``[T, T]``, NaN where a gradient is zero or not finite.
        alignment: ``[T]``, cosine of ``g_k`` and ``Σ g_k``: negative where a small step of the plain sum makes the
            task worse, as far as the shared part goes.
        shares: ``[T]``, each task's part of that step, ``⟨g_k, Σ g⟩ / ‖Σ g‖²``; they sum to 1.
        looks: how many batches these are means of.
        conflict_rates: ``[T, T]``, in how many of them the cosine lay below -0.1.
    """

    tasks: tuple[str, ...]
    absent: tuple[str, ...]
    place: str
    losses: Tensor
    norms: Tensor
    cosines: Tensor
    alignment: Tensor
    shares: Tensor
    looks: int
    conflict_rates: Tensor

    @property
    def non_finite(self) -> tuple[str, ...]:
        """Tasks whose loss or gradient is inf or NaN."""
        return self._named(~(self.losses.isfinite() & self.norms.isfinite()))

    @property
    def silent(self) -> tuple[str, ...]:
        """Tasks whose gradient is zero."""
        return self._named(self.norms == 0)

    @property
    def ratio(self) -> float:
        """The longest gradient over the shortest that is not zero; 1 where there are no two."""
        moving = self.norms[self.norms.isfinite() & (self.norms > 0)]
        return float(moving.max() / moving.min()) if len(moving) else 1.0

    @property
    def dominant(self) -> str | None:
        """The task of the longest gradient, where another is less than a tenth as long."""
        return self.tasks[int(self.norms.nan_to_num(0, 0).argmax())] if self.ratio > DOMINANCE else None

    @property
    def drowned(self) -> tuple[str, ...]:
        """Tasks whose gradient is less than a tenth of the longest, and not zero."""
        longest = self.norms.nan_to_num(0, 0).max()
        return self._named((self.norms > 0) & (self.norms * DOMINANCE < longest))

    @property
    def pairs(self) -> list[tuple[str, str, float]]:
        """All pairs that have a cosine, the lowest first."""
        rows, columns = torch.triu_indices(len(self.tasks), len(self.tasks), 1)
        found = sorted(
            (value, i, j)
            for value, i, j in zip(self.cosines[rows, columns].tolist(), rows.tolist(), columns.tolist(), strict=True)
            if value == value
        )
        return [(self.tasks[i], self.tasks[j], value) for value, i, j in found]

    @property
    def conflicts(self) -> list[tuple[str, str, float]]:
        """The pairs whose cosine is below -0.1, the lowest first."""
        return [pair for pair in self.pairs if pair[2] < CONFLICT]

    @property
    def conflict_rate(self) -> float:
        """How often a pair conflicted, mean over pairs and looks; NaN where there is no pair."""
        rows, columns = torch.triu_indices(len(self.tasks), len(self.tasks), 1)
        return float(self.conflict_rates[rows, columns].nanmean())

    @property
    def agreement(self) -> float:
        """The alignment score ``2 ‖1/T Σ g_k/‖g_k‖‖² - 1`` of Wang et al. (2025), arXiv 2502.00604.

        1 where all gradients point one way; for two tasks it is their cosine. Over the tasks that have a gradient.
        """
        there = ~self.cosines.diagonal().isnan()
        cosines = self.cosines[there][:, there]
        return float(2 * cosines.mean() - 1) if len(cosines) else float("nan")

    @property
    def blind(self) -> list[tuple[str, str]]:
        """Pairs that share no samples, so that features show no angle between them."""
        return [(i, j) for i, j, value in self.pairs if value == 0] if self.place == "features" else []

    @property
    def worsened(self) -> tuple[str, ...]:
        """Tasks that a small step of the plain sum makes worse."""
        return self._named(self.alignment < CONFLICT)

    def _named(self, mask: Tensor) -> tuple[str, ...]:
        return tuple(task for task, here in zip(self.tasks, mask.tolist(), strict=True) if here)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text; ``"cosine"`` and ``"conflict_rate"`` are keyed ``"first,second"``."""
        columns = {
            "loss": self.losses,
            "norm": self.norms,
            "alignment": self.alignment,
            "share": self.shares,
        }
        size = len(self.tasks)
        places = [(i, j) for i in range(size) for j in range(i + 1, size)]
        matrices = {"cosine": self.cosines.tolist(), "conflict_rate": self.conflict_rates.tolist()}
        return {
            "tasks": list(self.tasks),
            "absent": list(self.absent),
            "place": self.place,
            "looks": self.looks,
            **{name: dict(zip(self.tasks, column.tolist(), strict=True)) for name, column in columns.items()},
            **{
                name: {f"{self.tasks[i]},{self.tasks[j]}": matrix[i][j] for i, j in places}
                for name, matrix in matrices.items()
            },
            "ratio": self.ratio,
            "agreement": self.agreement,
            "dominant": self.dominant,
        }
