"""Shares that sum to 1: projection on the simplex, and what is left of them where tasks are absent."""

from __future__ import annotations

import torch
from torch import Tensor


def shares_of_present(shares: Tensor) -> Tensor:
    """The shares of the tasks at hand, scaled to sum to 1: all alike where absent tasks hold everything."""
    total = shares.sum()
    return shares / total if bool(total > 0) else torch.full_like(shares, 1 / len(shares))


def kept_shares(shares: Tensor, before: Tensor, tasks: int) -> Tensor:
    """What is to be kept of shares of the tasks at hand, which sum to 1: they hold together what they held `before`, so
    that what is kept of all ``tasks`` goes on to sum to 1. Where they held nothing they are given an even part."""
    total = before.sum()
    return shares * torch.where(total > 0, total, len(before) / tasks)


def project_on_simplex(point: Tensor) -> Tensor:
    """``argmin_{w ≥ 0, Σw = 1} ‖w - y‖`` as ``[T]``, exact.

    ``w = max(y - τ, 0)``, where ``τ`` follows from sorting ``y``.

    Source: Held, Wolfe, Crowder, "Validation of subgradient optimization" (1974).
    """
    # Adding a constant to y changes nothing: taken relative to its largest entry, nothing cancels.
    y = point - point.max()
    ordered = y.sort(descending=True).values
    thresholds = (ordered.cumsum(0) - 1) / torch.arange(1, len(y) + 1, dtype=y.dtype, device=y.device)
    last = ((ordered > thresholds).sum() - 1).clamp(min=0)  # of NaN it is none, and all of w is NaN
    w = (y - thresholds.gather(0, last[None])).clamp(min=0)  # no number is asked for: a loop of these need not wait
    return w / w.sum()
