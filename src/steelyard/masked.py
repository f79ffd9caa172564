"""Means over the labels that are there."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(unreduced: Tensor, mask: Tensor) -> Tensor | None:
    """Mean of the unreduced losses where ``mask`` holds; ``None`` (an absent task) where it holds nowhere.

    ``Σ mask · ℓ / Σ mask``, over the selected elements alone: a NaN under the mask reaches neither the value nor any
    gradient that passes through ``unreduced`` elementwise. (A NaN *target* still spoils the gradient of its own
    row's loss if the loss multiplies by it: select the rows before the loss, or replace missing targets by any number.)

    Args:
        unreduced: losses per element, e.g. from ``reduction="none"``.
        mask: boolean, broadcastable to ``unreduced``; true where there is a label.

    Returns:
        A scalar that also carries ``label_count``, the number of labels behind it, for `Balancer` to weigh
        micro-batches and ranks by.
    """
    mask = mask.to(torch.bool).expand_as(unreduced)
    chosen = unreduced[mask]
    if chosen.numel() == 0:
        return None
    mean = chosen.mean()
    mean.label_count = chosen.numel()  # type: ignore[attr-defined]
    return mean
