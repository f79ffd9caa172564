"""The best few networks among those that were measured: each task is served by the one that serves it best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Gains = NDArray[np.float64]
RowNumbers = NDArray[np.intp]

# Subgradient steps at the root and at each node below it: bounds are tight after a few dozen.
ROOT_STEPS, NODE_STEPS = 300, 40


@dataclass(frozen=True)
class Cover:
    """Rows of a matrix of gains that together serve every task.

    Attributes:
        rows: the chosen rows, in ascending order.
        value: summed gain over the tasks.
        gap: how much more another choice may be worth at most; 0 where this one is proved to be the best.
    """

    rows: tuple[int, ...]
    value: float
    gap: float


def best_cover(gains: Gains, networks: int, *, most_nodes: int = 400) -> Cover | None:
    """At most `networks` rows with the largest `Σ_t max_k gains[k, t]`; exact, or with the gap that is left.

    This is the p-median problem. Its Lagrangian dual, `Σ λ + the best K of Σ_t max(0, g − λ)`, costs one look at the
    matrix and is nearly always tight; what it leaves open is decided by branch and bound over rows.

    Args:
        gains: `[m, T]`; minus infinity where a row does not serve a task.
        networks: the most rows that may be chosen.
        most_nodes: of the search, after which the best choice so far is taken without the proof that there is no better
            one. A count and not a time, so that the choice is the same on every machine.

    Returns:
        The choice; none where no `networks` rows serve every task.
    """
    if not np.isfinite(gains).any(0).all():
        return None
    kept = _undominated(gains)
    search = _Search(gains[kept], min(networks, len(kept)), most_nodes)
    search.run()
    if search.best is None:
        return None
    return Cover(
        tuple(sorted(int(kept[row]) for row in search.best)), search.value, max(0.0, search.bound - search.value)
    )


def _undominated(gains: Gains) -> RowNumbers:
    """Rows that no other row beats or equals at every task that they serve; of equal rows the first."""
    kept: list[int] = []
    for row in np.argsort(-np.isfinite(gains).sum(1), kind="stable"):
        if not len(kept) or not (gains[kept] >= gains[row]).all(1).any():
            kept.append(int(row))
    return np.array(sorted(kept), dtype=np.intp)


class _Search:
    """Branch and bound: a node is the rows that must be chosen and those that still may be."""

    def __init__(self, gains: Gains, networks: int, most_nodes: int) -> None:
        self.networks = networks
        self.most_nodes = most_nodes
        served = np.isfinite(gains)
        # A number in infinity's place, so low that an uncovered task is never worth it.
        low = np.where(served, gains, np.inf).min()
        self.missing = low - gains.shape[1] * (np.where(served, gains, -np.inf).max() - low + 1.0)
        self.gains = np.where(served, gains, self.missing)
        self.served = served
        self.best: tuple[int, ...] | None = None
        self.value = -np.inf
        self.bound = -np.inf
        # What is no cover at all is worth this or more.
        self.worst = self.missing * gains.shape[1]
        # A difference that rounding makes is none.
        self.tie = 1e-12 * max(1.0, float(np.abs(self.gains[served]).max()) * gains.shape[1])

    def run(self) -> None:
        self._greedy()
        left: list[float] = []
        prices = self.gains.max(0)
        nodes: list[tuple[float, tuple[int, ...], RowNumbers, Gains, int]] = [
            (np.inf, (), np.arange(len(self.gains)), prices, ROOT_STEPS)
        ]
        opened = 0
        while nodes:
            bound, chosen, free, prices, steps = nodes.pop()
            if bound <= self.value + self.tie:
                continue
            # Whether there is a choice at all is always decided.
            if opened >= self.most_nodes and self.best is not None:
                left.append(bound)
                continue
            opened += 1
            bound, free, prices, row = self._relax(chosen, free, prices, steps)
            if bound <= self.value + self.tie or row is None:
                continue
            without = free[free != row]
            nodes.append((bound, chosen, without, prices, NODE_STEPS))
            nodes.append((bound, (*chosen, row), without, prices, NODE_STEPS))
        self.bound = max([self.value, *left])

    def _worth(self, rows: tuple[int, ...]) -> float:
        return float(self.gains[list(rows)].max(0).sum())

    def _may_serve_all(self, chosen: tuple[int, ...], free: RowNumbers, count: int) -> bool:
        """Whether the widest of the free rows serve as many tasks as are not served yet, together at most."""
        left = ~self.served[list(chosen)].any(0)
        widths = np.sort(self.served[free][:, left].sum(1))
        return bool(widths[-count:].sum() >= left.sum())

    def _offer(self, rows: tuple[int, ...]) -> None:
        """Take a choice that serves every task and is better than the best so far."""
        if self.served[list(rows)].any(0).all() and (value := self._worth(rows)) > self.value:
            self.best, self.value = rows, value

    def _greedy(self) -> None:
        """A first choice: row by row, then rows exchanged for better ones."""
        rows: list[int] = []
        reached = np.full(self.gains.shape[1], self.missing)
        for _ in range(self.networks):
            gain = np.maximum(self.gains, reached).sum(1)
            rows.append(int(gain.argmax()))
            reached = np.maximum(reached, self.gains[rows[-1]])
        self._improve(tuple(dict.fromkeys(rows)))

    def _improve(self, rows: tuple[int, ...]) -> None:
        current = self._worth(rows)
        while True:
            exchanges = []
            for out in range(len(rows)):
                others = rows[:out] + rows[out + 1 :]
                reached = self.gains[list(others)].max(0) if others else np.full(self.gains.shape[1], self.missing)
                gain = np.maximum(self.gains, reached).sum(1)
                exchanges.append((float(gain.max()), (*others, int(gain.argmax()))))
            value, better = max(exchanges)
            if value <= current + self.tie:
                break
            rows, current = better, value
        self._offer(rows)

    def _relax(
        self, chosen: tuple[int, ...], free: RowNumbers, prices: Gains, steps: int
    ) -> tuple[float, RowNumbers, Gains, int | None]:
        """The bound of a node, the rows that may still matter, the prices, and the row to branch on."""
        count = self.networks - len(chosen)
        must = self.gains[list(chosen)]
        if count == 0 or not len(free):
            if chosen:
                self._offer(chosen)
            return -np.inf, free, prices, None
        if not self._may_serve_all(chosen, free, count):
            return -np.inf, free, prices, None
        bound, best_prices, step = np.inf, prices, 1.0
        for index in range(steps):
            surplus = np.maximum(self.gains[free] - prices, 0.0)
            worth = surplus.sum(1)
            top = np.argpartition(-worth, min(count, len(free)) - 1)[:count]
            value = float(prices.sum() + np.maximum(must - prices, 0.0).sum() + worth[top].sum())
            if value < bound - self.tie:
                bound, best_prices = value, prices
            elif index % 5 == 4:
                step *= 0.7
            if bound <= self.value + self.tie:
                return bound, free, best_prices, None
            if index % 10 == 0:
                self._improve((*chosen, *(int(row) for row in free[top])))
            serving = (must > prices).sum(0) + (surplus[top] > 0).sum(0)
            slope = 1.0 - serving
            length = float((slope * slope).sum())
            if length == 0.0:
                break
            prices = prices - step * max(value - max(self.value, self.worst), self.tie) / length * slope
        if bound <= self.value + self.tie:
            return bound, free, best_prices, None
        worth = np.maximum(self.gains[free] - best_prices, 0.0).sum(1)
        order = np.argsort(-worth, kind="stable")
        last = worth[order[min(count, len(free)) - 1]]
        # A row whose choice costs more than the bound has to spare is in no better solution.
        free = free[order[worth[order] >= last - (bound - self.value)]]
        return bound, free, best_prices, int(free[0])
