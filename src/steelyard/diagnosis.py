"""A first look at how the tasks' gradients get along: numbers of one batch, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steelyard.advice import CONFLICT, DOMINANCE, advise
from steelyard.checks import present_losses
from steelyard.columns import cosine_table, task_table
from steelyard.errors import LossError, SharedError
from steelyard.method import Method
from steelyard.observation import Reads
from steelyard.reading import Shared, place_of, read

_CANCELLED = 1e-3
"""Below this part of ``Σ ‖g_k‖``, the length of ``Σ g_k`` is rounding, or as good as nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """How the tasks' gradients get along; prints as a table and words.

    Attributes:
        tasks, absent: names of the tasks that were there, in order, and of those that were not.
        place: where gradients were read, ``"features"`` or ``"trunk"``.
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
    def blind(self) -> list[tuple[str, str]]:
        """Pairs that share no samples, so that features show no angle between them."""
        return [(i, j) for i, j, value in self.pairs if value == 0] if self.place == "features" else []

    @property
    def worsened(self) -> tuple[str, ...]:
        """Tasks that a small step of the plain sum makes worse."""
        return self._named(self.alignment < CONFLICT)

    @property
    def advice(self) -> tuple[str, ...]:
        """What the numbers say, in sentences."""
        return advise(self)

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
            "dominant": self.dominant,
            "advice": list(self.advice),
        }

    def table(self) -> str:
        """The numbers."""
        blocks = [task_table(self)]
        if len(self.tasks) > 1:
            blocks.append(cosine_table(self))
        if self.absent:
            blocks.append(f"Absent: {', '.join(self.absent)}")
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        return "\n".join([self.table(), "", *(f"- {sentence}" for sentence in self.advice)])

    __repr__ = __str__


def diagnose(losses: Mapping[str, Tensor | None], *, shared: Shared) -> Diagnosis:
    """Look at one batch: whose gradient dominates, whose conflict, and what that suggests.

    Nothing is changed: no ``.grad``, no state, and the graph is kept, so the backward pass may follow.

    Args:
        losses: scalar loss tensors with a graph, by task name; a task may be ``None``.
        shared: where gradients are read, as in a balancer's call: the features that the heads read (cheap, blind to
            conflicts of tasks that share no samples), or the trunk as a module or its parameters (exact).

    Raises:
        LossError, SharedError: the losses or ``shared`` cannot be read.

    Cost: one backward pass per task, to where gradients are read.
    """
    if not isinstance(losses, Mapping) or not losses:
        raise LossError("losses must map task names to scalar tensors: write diagnose({'name': loss, …}, shared=…)")
    if shared is None:
        raise SharedError(
            "diagnose needs to know where to read gradients: write diagnose(losses, shared=features), with the tensor "
            "(or tuple of tensors) that the task heads read, or shared=trunk with the shared module"
        )
    names = tuple(losses)
    method = _Look(names)
    positions, found = present_losses(method.tasks, frozenset(names), losses, needs_graph=True)
    tasks = names if positions is None else tuple(names[position] for position in positions)
    place = place_of(method, shared)
    assert place is not None
    with torch.no_grad():
        gramian = read(method, tasks, found, place).gramian
        assert gramian is not None
        numbers = torch.tensor([float(loss) for loss in found], dtype=torch.float64)
        absent = tuple(name for name in names if name not in tasks)
        return _from_gramian(tasks, absent, "trunk" if place.is_trunk else "features", numbers, gramian.cpu())


class _Look(Method):
    """Declares what a look reads; it weighs nothing."""

    name: ClassVar[str] = "diagnose"
    reads: Reads = "gramian"


def _from_gramian(
    tasks: tuple[str, ...], absent: tuple[str, ...], place: str, losses: Tensor, gramian: Tensor
) -> Diagnosis:
    norms = gramian.diagonal().clamp(min=0).sqrt()
    fine = norms.isfinite()
    moving = fine & (norms > 0)
    both = moving[:, None] & moving
    unknown = torch.full_like(norms, torch.nan)
    inverse = torch.where(moving, 1 / norms, torch.zeros_like(norms))
    cosines = torch.where(both, (gramian * inverse[:, None] * inverse).clamp(-1, 1), torch.nan)
    # In units of the longest gradient, so that no square of a sum leaves the range of numbers.
    size = norms[moving].max() if bool(moving.any()) else norms.new_ones(())
    with_sum = torch.where(both, gramian / size / size, torch.zeros_like(gramian)).sum(1)
    length = with_sum.sum().clamp(min=0).sqrt()
    whole = length > _CANCELLED * (norms[moving] / size).sum()
    alignment = torch.where(moving & whole, (with_sum * size * inverse / length).clamp(-1, 1), unknown)
    shares = torch.where(fine & whole, with_sum / length**2, unknown)
    rates = torch.where(cosines.isnan(), torch.nan, (cosines < CONFLICT).double())
    return Diagnosis(tasks, absent, place, losses, norms, cosines, alignment, shares, 1, rates)
