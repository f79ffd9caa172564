"""Projection on the simplex."""

from __future__ import annotations

import torch
from torch import Tensor


def project_on_simplex(point: Tensor) -> Tensor:
    """``argmin_{w ≥ 0, Σw = 1} ‖w - y‖`` as ``[T]``, exact.

    ``w = max(y - τ, 0)``, where ``τ`` follows from sorting ``y``.

    Source: Held, Wolfe, Crowder, "Validation of subgradient optimization" (1974).
    """
    # Adding a constant to y changes nothing: taken relative to its largest entry, nothing cancels.
    y = point - point.max()
    ordered = y.sort(descending=True).values
    thresholds = (ordered.cumsum(0) - 1) / torch.arange(1, len(y) + 1, dtype=y.dtype, device=y.device)
    last = int((ordered > thresholds).sum()) - 1
    w = (y - thresholds[last]).clamp(min=0)
    return w / w.sum()
