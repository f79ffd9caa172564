"""What a method sees of one step, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Reads = Literal["losses", "norms", "gramian", "cross_gramian", "rows", "lookahead"]
"""What a method needs to know of a step, in order of cost."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The present tasks of one step; every tensor is float64 and detached. ``T`` counts the *present* tasks, with a
    memory those that are remembered too.

    Attributes:
        tasks: their names, in the balancer's order.
        losses: ``[T]``.
        counts: ``[T]``, labels behind each loss; ones where the caller gave none.
        squared_norms: ``[T]``, squared norms of the task gradients, for methods that read ``norms`` or more.
        gramian: ``[T, T]``, inner products of the task gradients, for methods that read the ``gramian`` or more.
        cross_gramian: ``[T, T]``, inner products of the rows of two independent probe batches, ``J₁ J₂ᵀ``.
        rows: ``[T, P]`` in float32 or better, the task gradients themselves, for methods that read ``rows``.
        features: the tensors that the heads read, detached, for methods that read ``rows`` at features.
        outlook: ``[T]``, what `Method.look_ahead` found, for methods that read the ``lookahead``.
        over_ranks: the sum of a tensor over the ranks that share the batch; ``None``: there is but one.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    counts: Tensor
    squared_norms: Tensor | None = None
    gramian: Tensor | None = None
    cross_gramian: Tensor | None = None
    rows: Tensor | None = None
    features: tuple[Tensor, ...] | None = None
    outlook: Tensor | None = None
    over_ranks: Callable[[Tensor], Tensor] | None = None

    def batch_sum(self, values: Tensor) -> Tensor:
        """The sum of ``[T, B, …]`` over the batch, that of all ranks."""
        local = values.sum(1)
        return local if self.over_ranks is None else self.over_ranks(local)

    @property
    def norms(self) -> Tensor:
        """``[T]``, norms of the task gradients."""
        assert self.squared_norms is not None, "the method reads norms without declaring it in `reads`"
        return self.squared_norms.sqrt()

    def transformed(self, losses: Tensor, factor: Tensor | None) -> Seen:
        """The same step seen through loss stages: task gradients scale by ``factor = d stage(L) / dL``.

        A look ahead has stepped along the scaled gradients already.
        """
        if factor is None:
            return self
        return replace(
            self,
            losses=losses,
            squared_norms=None if self.squared_norms is None else self.squared_norms * factor**2,
            gramian=None if self.gramian is None else self.gramian * factor[:, None] * factor,
            cross_gramian=None if self.cross_gramian is None else self.cross_gramian * factor[:, None] * factor,
            rows=None if self.rows is None else self.rows * factor[:, None].to(self.rows),
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """A method's answer for one step.

    Attributes:
        weights: ``[T]``, the multiplier of each task's gradient (of its stage-transformed loss).
        value: the objective's value, where it is not ``Σ weights · losses``.
        rows: ``[T, P]``, for element-wise methods: what the weights multiply at ``shared`` instead of the task
            gradients.
    """

    weights: Tensor
    value: Tensor | None = None
    rows: Tensor | None = None


def merge(window: Sequence[tuple[Seen, Tensor | None]], tasks: tuple[str, ...]) -> tuple[Seen, Tensor | None]:
    """One observation of the whole window of micro-batches, and the index of the tasks that it saw.

    With ``c_i^r = n_i^r / Σ_r n_i^r`` the share of task ``i``'s labels that micro-batch ``r`` holds, the loss of the
    window is ``Σ_r c_i^r L_i^r`` and its Gramian ``Σ_r c_i^r c_j^r G_ij^r``: exact for gradients at features, where
    rows of different samples are orthogonal. Rows of the trunk add up, ``Σ_r c_i^r g_i^r``, and their Gramian is exact.
    What looks ahead found is averaged like the losses.
    """
    if len(window) == 1:
        return window[0]
    first = window[0][0]
    size, device = len(tasks), first.losses.device
    everything = torch.arange(size, device=device)
    spread = []
    total = torch.zeros(size, dtype=torch.float64, device=device)
    for seen, index in window:
        place = everything if index is None else index
        total.index_add_(0, place, seen.counts)
        spread.append((seen, place))
    losses = torch.zeros_like(total)
    squared_norms = None if first.squared_norms is None else torch.zeros_like(total)
    gramian = None if first.gramian is None else torch.zeros(size, size, dtype=torch.float64, device=device)
    outlook = None if first.outlook is None else torch.zeros_like(total)
    for seen, place in spread:
        part = seen.counts / total[place]
        losses.index_add_(0, place, part * seen.losses)
        if outlook is not None and seen.outlook is not None:
            outlook.index_add_(0, place, part * seen.outlook)
        if squared_norms is not None and seen.squared_norms is not None:
            squared_norms.index_add_(0, place, part**2 * seen.squared_norms)
        if gramian is not None and seen.gramian is not None:
            gramian[place[:, None], place] += part[:, None] * part * seen.gramian
    cross = None
    if first.cross_gramian is not None:
        # Each micro-batch's is an unbiased estimate of the same matrix: their mean, by counts.
        cross, weight = (
            torch.zeros(size, size, dtype=torch.float64, device=device),
            torch.zeros_like(total[:, None] * total),
        )
        for seen, place in spread:
            assert seen.cross_gramian is not None
            both = seen.counts[:, None] * seen.counts
            cross[place[:, None], place] += both * seen.cross_gramian
            weight[place[:, None], place] += both
        cross = cross / weight.clamp(min=torch.finfo(torch.float64).tiny)
    rows = None
    if first.rows is not None and first.features is None:
        rows = first.rows.new_zeros(size, first.rows.shape[1])
        for seen, place in spread:
            assert seen.rows is not None
            rows.index_add_(0, place, seen.rows * (seen.counts / total[place])[:, None].to(seen.rows))
        gramian = (rows @ rows.T).double()
        squared_norms = gramian.diagonal()
    present = (total > 0).nonzero().squeeze(1)
    merged = Seen(
        tasks=tuple(tasks[position] for position in present.tolist()),
        losses=losses[present],
        counts=total[present],
        squared_norms=None if squared_norms is None else squared_norms[present],
        gramian=None if gramian is None else gramian[present[:, None], present],
        cross_gramian=None if cross is None else cross[present[:, None], present],
        rows=None if rows is None else rows[present],
        outlook=None if outlook is None else outlook[present],
    )
    return merged, None if len(present) == size else present
