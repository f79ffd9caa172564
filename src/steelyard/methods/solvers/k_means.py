"""Exact k-means of numbers on a line."""

from __future__ import annotations

import torch
from torch import Tensor


def k_means_on_line(values: Tensor, groups: int) -> Tensor:
    """Replace each of the ``values [n]`` by the mean of its group, in the grouping of least squared error.

    On a line the groups of an optimal grouping are intervals of the sorted values, so dynamic programming over the
    last interval's start finds it: ``O(groups · n²)`` time, ``O(n²)`` memory.

    Args:
        values: ``[n]``.
        groups: how many; never more are used than there are values.
    """
    count = len(values)
    groups = min(groups, count)
    order = values.argsort(stable=True)
    ordered = values[order]
    # Centred and scaled, so that the cost of an interval is not a difference of large squares.
    centred = ordered - ordered.mean()
    size = centred.abs().max()
    centred = centred / size if bool(size > 0) else centred
    zero = centred.new_zeros(1)
    sums = torch.cat([zero, centred.cumsum(0)])
    squares = torch.cat([zero, (centred**2).cumsum(0)])
    # cost[i, j]: squared error of the interval from i to j (exclusive), infinite where it is empty.
    length = torch.arange(count + 1, device=values.device, dtype=centred.dtype)
    span = length[None, :] - length[:, None]
    total = sums[None, :] - sums[:, None]
    cost = (squares[None, :] - squares[:, None] - total**2 / span.clamp(min=1)).clamp(min=0)
    cost = torch.where(span > 0, cost, torch.full_like(cost, float("inf")))

    best = cost[0]
    starts = []
    for _ in range(groups - 1):
        best, start = (best[:, None] + cost).min(0)
        starts.append(start)
    result = torch.empty_like(values)
    end = count
    for group in reversed(range(groups)):
        begin = int(starts[group - 1][end]) if group else 0
        result[order[begin:end]] = ordered[begin:end].mean()
        end = begin
    return result
