"""Means over the labels that are there."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.distributed.ranks import is_initialised


def masked_mean(unreduced: Tensor, mask: Tensor) -> Tensor | None:
    """Mean of the unreduced losses where ``mask`` holds; ``None`` (an absent task) where it holds nowhere.

    In a distributed run a task without labels on this rank keeps its graph instead, if it has one (not under
    ``no_grad``): 0, with 0 labels behind it, which a balancer takes for absent, while wrappers that wait for every
    rank's backward are served.

    ``Σ mask · ℓ / Σ mask``, over the selected elements alone: a NaN under the mask reaches neither the value nor any
    gradient that passes through ``unreduced`` elementwise. (A NaN *target* still spoils the gradient of its own
    row's loss if the loss multiplies by it: select the rows before the loss, or replace missing targets by any number.)

    Args:
        unreduced: losses per element, e.g. from ``reduction="none"``.
        mask: boolean, broadcastable to ``unreduced``; true where there is a label.

    Returns:
        A scalar that also carries ``label_count``, the number of labels behind it, for `Balancer` to weigh
        micro-batches and ranks by. Arithmetic on it (``0.5 * mean``) loses the count: scale ``unreduced`` instead.

    Example:
        >>> errors = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
        >>> loss = steelyard.masked_mean(errors, torch.tensor([True, False, True]))
        >>> loss.item(), loss.label_count
        (2.0, 2)
        >>> steelyard.masked_mean(errors, torch.tensor([False, False, False])) is None  # an absent task
        True
    """
    mask = mask.to(torch.bool).expand_as(unreduced)
    chosen = unreduced[mask]
    if chosen.numel() == 0 and not (is_initialised() and chosen.requires_grad):
        return None
    # Other ranks may have labels, and average gradients with this one's: its graph must not break off here.
    mean = chosen.mean() if chosen.numel() else chosen.sum()
    mean.label_count = chosen.numel()  # type: ignore[attr-defined]
    return mean
