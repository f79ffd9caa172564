"""The global batch, and what is known of its gradients: the same numbers on all ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.balancing.global_batch.local_batch import LocalBatch
from steelyard.balancing.observe import Batch
from steelyard.gradients.reading import Reading
from steelyard.gradients.row_products import gramian_of_rows
from steelyard.gradients.rows import Rows, numbers_in


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """The global batch, by the tasks that are balanced: the same numbers on all ranks.

    Attributes:
        live: their positions among the balancer's.
        labels: behind each.
        losses: the mean over those labels.
        gramian, squared_norms: of their gradients, where those are read.
        rows: their gradients, where the ranks' sums of them are.
        reached: the numbers in each parameter that a task depends on, on any rank, for methods that read rows.
    """

    live: list[int]
    labels: Tensor
    losses: Tensor
    gramian: Tensor | None = None
    squared_norms: Tensor | None = None
    rows: Tensor | None = None
    reached: Tensor | None = None

    @classmethod
    def of(cls, live: list[int], table: Tensor) -> GlobalBatch:
        """From what the ranks have summed."""
        labels, _, totals = table[:3, live]
        return cls(live, labels, totals / labels)

    def only(self, chosen: list[int]) -> GlobalBatch:
        """Some of them, by their place among these."""
        return GlobalBatch(
            [self.live[k] for k in chosen],
            self.labels[chosen],
            self.losses[chosen],
            None if self.gramian is None else self.gramian[chosen][:, chosen],
            None if self.squared_norms is None else self.squared_norms[chosen],
            None if self.rows is None else self.rows[chosen],
            None if self.reached is None else self.reached[chosen],
        )


def with_products(whole: GlobalBatch, products: Tensor, square: bool, scale: Tensor) -> GlobalBatch:
    """The Gramian, or the squared norms, from all ranks' `products_of`, summed; a task's gradient times ``scale``."""
    if not square:
        return replace(whole, squared_norms=products[whole.live] * scale**2)
    size = math.isqrt(len(products))
    gramian = products.view(size, size)[whole.live][:, whole.live] * scale[:, None] * scale
    return replace(whole, gramian=gramian, squared_norms=gramian.diagonal())


def with_rows(
    whole: GlobalBatch, ranks: Ranks, reading: Reading, batch: Batch, part: LocalBatch, element_wise: bool
) -> GlobalBatch:
    """The gradients of the global batch, summed over the ranks, and their Gramian."""
    local = reading.whole if reading.whole is not None else reading.rows
    assert isinstance(local, Rows)
    rows = local.matrix.new_zeros(len(whole.live), local.matrix.shape[1])
    reached = part.counts.new_zeros(len(whole.live), len(local.tensors))
    for k, clean in enumerate(part.clean.tolist()):
        if clean and batch.position(k) in whole.live:
            place = whole.live.index(batch.position(k))
            rows[place] = local.matrix[k] * (part.counts[k] / whole.labels[place]).to(rows)
            if local.reached is not None:
                reached[place] = local.reached[k].to(reached)
    rows = ranks.sum(rows)
    gramian = gramian_of_rows(rows)
    whole = replace(whole, gramian=gramian, squared_norms=gramian.diagonal(), rows=rows)
    if not element_wise:
        return whole
    sizes = reached.new_tensor([numbers_in(tensor) for tensor in local.tensors])
    return replace(whole, reached=torch.minimum(ranks.sum(reached), sizes))
