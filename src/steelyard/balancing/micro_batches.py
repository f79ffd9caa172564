"""What the micro-batches between two optimizer steps saw, as one running mean: the window never holds two of them."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.balancing.weighing import Proposal
from steelyard.base.observation import Seen
from steelyard.gradients.row_products import gramian_of_rows

_TINY = torch.finfo(torch.float64).tiny
_NAN = float("nan")


class Window:
    """The micro-batches of one optimizer step.

    With ``c_i^r = n_i^r / Σ_r n_i^r`` the share of task ``i``'s labels that micro-batch ``r`` holds, the loss of the
    window is ``Σ_r c_i^r L_i^r`` and its Gramian ``Σ_r c_i^r c_j^r G_ij^r``: exact for gradients at features, where
    rows of different samples are orthogonal. Rows of the trunk add up, ``Σ_r c_i^r g_i^r``, and their Gramian is exact.
    What looks ahead found is averaged like the losses, over the micro-batches of which they found something.

    All of these are kept as means over what has come so far: memory and rounding do not depend on how many come.

    Args:
        tasks: names of all tasks, in the balancer's order.
    """

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self.tasks = tasks
        self.calls = 0
        self._first: tuple[Seen, Proposal] | None = None
        self._mean: _Mean | None = None
        self._stale = False

    def add(self, seen: Seen, proposal: Proposal) -> None:
        """One micro-batch has been weighed."""
        self.calls += 1
        if self.calls == 1:
            self._first = seen, proposal
            return
        if self._first is not None:
            first, index = self._first[0], self._first[1].index
            self._mean = _Mean(len(self.tasks), first)
            self._mean.add(first, index)
            self._first = None
        assert self._mean is not None
        self._mean.add(seen, proposal.index)

    def expire(self) -> None:
        """The state has moved since its micro-batches came, if any did: what they lead to is asked of the new one."""
        self._stale = self.calls > 0

    @property
    def only(self) -> Proposal | None:
        """What the only micro-batch led to, if there is one alone and that still stands."""
        return None if self._first is None or self._stale else self._first[1]

    def seen(self) -> tuple[Seen, Tensor | None]:
        """The observation, of one micro-batch or of several, and the index of the tasks that it saw."""
        return self.observation() if self._first is None else (self._first[0], self._first[1].index)

    def observation(self) -> tuple[Seen, Tensor | None]:
        """One observation of several micro-batches, and the index of the tasks that it saw."""
        assert self._mean is not None, "one micro-batch is its own observation"
        return self._mean.observation(self.tasks)


class _Mean:
    """The mean over micro-batches, over all tasks; zero for those that were absent from each."""

    def __init__(self, size: int, first: Seen) -> None:
        def zeros(like: Tensor | None, *shape: int) -> Tensor | None:
            return None if like is None else like.new_zeros(shape)

        self.total = first.counts.new_zeros(size)
        self.losses = first.losses.new_zeros(size)
        self.squared_norms = zeros(first.squared_norms, size)
        self.outlook: Tensor | None = None
        self.looked = first.counts.new_zeros(size)
        self.gramian, self.cross = zeros(first.gramian, size, size), zeros(first.cross_gramian, size, size)
        self.pairs = zeros(first.cross_gramian, size, size)
        # Rows at features belong to their samples: those of different micro-batches do not add up.
        at_trunk = first.rows is not None and first.features is None
        self.rows = zeros(first.rows, size, first.rows.shape[1]) if at_trunk and first.rows is not None else None
        self.reached = None if first.reached is None else first.reached.new_zeros(size, first.reached.shape[1])

    def add(self, seen: Seen, index: Tensor | None) -> None:
        counts = self._spread(seen.counts, index)
        total = self.total + counts
        known = total.clamp(min=_TINY)  # of a task that was never there, nothing is averaged
        before, part = self.total / known, counts / known
        self.total = total

        def joined(mean: Tensor | None, value: Tensor | None, before: Tensor, part: Tensor) -> Tensor | None:
            if mean is None or value is None:
                return mean
            return before * mean + part * self._spread(value, index)

        self.losses = before * self.losses + part * self._spread(seen.losses, index)
        if seen.outlook is not None:
            looked = self.looked + counts
            known = looked.clamp(min=_TINY)
            there = counts / known * self._spread(seen.outlook, index)
            self.outlook = there if self.outlook is None else self.looked / known * self.outlook + there
            self.looked = looked
        self.squared_norms = joined(self.squared_norms, seen.squared_norms, before**2, part**2)
        self.gramian = joined(self.gramian, seen.gramian, before[:, None] * before, part[:, None] * part)
        if self.pairs is not None:
            # Each micro-batch's is an unbiased estimate of the same matrix: their mean, by counts.
            both = counts[:, None] * counts
            pairs = self.pairs + both
            known = pairs.clamp(min=_TINY)
            self.cross = joined(self.cross, seen.cross_gramian, self.pairs / known, both / known)
            self.pairs = pairs
        if self.rows is not None and seen.rows is not None:  # in place: they are what takes the memory
            self.rows.mul_(before[:, None].to(self.rows))
            if index is None:
                self.rows.addcmul_(seen.rows, part[:, None].to(self.rows))
            else:
                self.rows.index_add_(0, index, seen.rows * part[index, None].to(seen.rows))

        if self.reached is not None and seen.reached is not None:  # by any of them
            whole = slice(None) if index is None else index
            self.reached[whole] = torch.maximum(self.reached[whole], seen.reached)

    def _spread(self, values: Tensor, index: Tensor | None) -> Tensor:
        """``[T]`` or ``[T, T]`` over all tasks, of values over those in the micro-batch."""
        if index is None:
            return values
        size = len(self.total)
        if values.dim() == 1:
            return values.new_zeros(size).index_copy_(0, index, values)
        return values.new_zeros(size, size).index_put_((index[:, None], index), values)

    def observation(self, tasks: tuple[str, ...]) -> tuple[Seen, Tensor | None]:
        gramian, squared_norms = self.gramian, self.squared_norms
        if self.rows is not None:
            gramian = gramian_of_rows(self.rows)
            squared_norms = gramian.diagonal()
        present = (self.total > 0).nonzero().squeeze(1)

        def of_present(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[present]

        seen = Seen(
            tasks=tuple(tasks[position] for position in present.tolist()),
            losses=self.losses[present],
            counts=self.total[present],
            squared_norms=of_present(squared_norms),
            gramian=None if gramian is None else gramian[present[:, None], present],
            cross_gramian=None if self.cross is None else self.cross[present[:, None], present],
            rows=self.rows if len(present) == len(tasks) else of_present(self.rows),
            outlook=None if self.outlook is None else torch.where(self.looked > 0, self.outlook, _NAN)[present],
            reached=of_present(self.reached),
        )
        return seen, None if len(present) == len(tasks) else present
