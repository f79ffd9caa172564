"""This rank's part of the global batch, and the table by which the ranks make it one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.balancing.distributed.pace import FLAGS as PACE
from steelyard.balancing.observe import Batch
from steelyard.base.method import Method
from steelyard.gradients.reading import Reading

TABLE_ROWS = 6
"""Of the table that travels: labels, their squares, labels times loss, non-finite losses, negative losses, ranks on
which the loss is more than an idle zero."""
FLAG_COUNT = 4 + PACE
"""Behind it: ranks without any loss, idle losses, the fingerprint of the parameters, its square, and whether all keep
pace."""


@dataclass(frozen=True, slots=True)
class LocalBatch:
    """This rank's part of the global batch, loss by loss.

    Attributes:
        tasks: positions of their tasks among the balancer's.
        counts: labels behind each.
        holds: which have any, and are no idle zeros.
        clean: which have any, and a loss that may be used.
    """

    tasks: Tensor
    counts: Tensor
    holds: Tensor
    clean: Tensor

    @classmethod
    def of(cls, method: Method, batch: Batch) -> LocalBatch:
        device = batch.values.device
        tasks = torch.tensor([batch.position(k) for k in range(len(batch.losses))], dtype=torch.long, device=device)
        counts = torch.ones_like(batch.values) if batch.counts is None else batch.values.new_tensor(batch.counts)
        holds = counts > 0
        if batch.idle:
            holds[list(batch.idle)] = False
        clean = holds if method.on_nonfinite == "ignore" else holds & batch.values.isfinite()
        return cls(tasks, counts, holds, clean)

    def table(self, values: Tensor, size: int) -> Tensor:
        """What all ranks sum of each of ``size`` tasks; the rows are those of `TABLE_ROWS`."""
        table = values.new_zeros(TABLE_ROWS, size)
        sums = torch.where(self.clean, self.counts * values, 0.0)
        bad, negative = self.holds & ~self.clean, self.clean & (values < 0)
        rows = [self.counts, self.counts**2, sums, bad.double(), negative.double(), self.holds.double()]
        table[:, self.tasks] = torch.stack(rows)
        return table


def products_of(reading: Reading | None, part: LocalBatch, size: int, square: bool) -> Tensor:
    """``n_i n_j G_ij`` of this rank, spread over all tasks, flat; zero where it has no labels."""
    whole = part.counts.new_zeros((size, size) if square else (size,))
    if reading is None:
        return whole.flatten()
    counts, holds = part.counts, part.holds
    if square:
        assert reading.gramian is not None
        products = torch.where(holds[:, None] & holds, counts[:, None] * counts * reading.gramian, 0.0)
        whole[part.tasks[:, None], part.tasks] = products
    else:
        whole[part.tasks] = torch.where(holds, counts**2 * reading.squared_norms, 0.0)
    return whole.flatten()
