"""Means over the labels that are there."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.balancing.distributed.ranks import is_initialised
from steelyard.errors import LossError, warn
from steelyard.gradients.gradients_near_loss import arrives_nearby, dense_values


def masked_mean(unreduced: Tensor, mask: Tensor) -> Tensor | None:
    """Mean of the unreduced losses where ``mask`` holds; ``None`` (an absent task) where it holds nowhere.

    In a distributed run a task without labels on this rank keeps its graph instead, if it has one (not under
    ``no_grad``): 0, with 0 labels behind it, which a balancer takes for absent, while wrappers that wait for every
    rank's backward are served.

    ``Σ mask · ℓ / Σ mask``, over the selected elements alone: a NaN under the mask reaches neither the value nor any
    gradient that passes through ``unreduced`` elementwise. A NaN *target* still spoils the gradient of its own loss,
    where the zero that arrives is multiplied by it: that is an error, which says what to write.

    Args:
        unreduced: losses per element, e.g. from ``reduction="none"``.
        mask: boolean, broadcastable to ``unreduced``; true where there is a label.

    Returns:
        A scalar that also carries ``label_count``, the number of labels behind it, for `Balancer` to weigh
        micro-batches and ranks by. Arithmetic on it (``0.5 * mean``) loses the count: scale ``unreduced`` instead.

    Raises:
        LossError: inf or NaN under the mask would make NaN of the gradient; the mask is of another shape, or holds
            several numbers besides 0, which would all count alike.

    Cost: one look at whether elements are finite, and one at a mask that is not of truth values; where elements under
        the mask are not finite, a backward pass from ``unreduced`` to the nearest layers.

    Example:
        >>> errors = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
        >>> loss = steelyard.masked_mean(errors, torch.tensor([True, False, True]))
        >>> loss.item(), loss.label_count
        (2.0, 2)
        >>> steelyard.masked_mean(errors, torch.tensor([False, False, False])) is None  # an absent task
        True
    """
    mask = _checked(mask, unreduced).expand_as(unreduced)
    chosen = unreduced[mask]
    if unreduced.requires_grad and chosen.numel() < unreduced.numel() and not torch.compiler.is_compiling():
        _check_hidden(unreduced, mask)
    if chosen.numel() == 0 and not (is_initialised() and chosen.requires_grad):
        return None
    # Other ranks may have labels, and average gradients with this one's: its graph must not break off here.
    mean = chosen.mean() if chosen.numel() else chosen.sum()
    mean.label_count = chosen.numel()  # type: ignore[attr-defined]
    return mean


def _checked(mask: object, unreduced: Tensor) -> Tensor:
    """The mask as truth values, if it is a mask of these losses."""
    if not isinstance(mask, Tensor):
        raise LossError(f"masked_mean: the mask is a {type(mask).__name__}, not a tensor: write torch.as_tensor(mask)")
    pairs = zip(reversed(mask.shape), reversed(unreduced.shape), strict=False)
    fits = mask.dim() <= unreduced.dim() and all(own in (1, size) for own, size in pairs)
    if not fits:
        raise LossError(
            f"masked_mean: a mask of shape {list(mask.shape)} for losses of shape {list(unreduced.shape)}: give one "
            'truth value for each loss, from reduction="none", or a shape that broadcasts to theirs'
        )
    if mask.dtype != torch.bool:
        if mask.numel() and not torch.compiler.is_compiling() and bool(((mask != 0) & (mask != mask.amax())).any()):
            raise LossError(
                "masked_mean: the mask holds several numbers besides 0, which would all count alike: give truth values "
                "(mask > 0), or weigh the losses, (weights * losses).sum() / weights.sum()"
            )
        return mask.to(torch.bool)
    return mask


def _check_hidden(unreduced: Tensor, mask: Tensor) -> None:
    """Elements under the mask receive zeros, and what multiplies those must be finite.

    What is inf or NaN there may be harmless (made by ``torch.where``), so the zeros are sent and looked at.
    """
    values = unreduced.detach()
    if bool((values.isfinite() | mask).all()):
        return
    hidden = int((~(values.isfinite() | mask)).sum())
    with torch.no_grad():
        arrived = arrives_nearby(unreduced, torch.zeros_like(values))
    fix = (
        "replace missing targets before the loss, target = torch.where(mask, target, 0), or select first: "
        "loss(output[mask], target[mask]).mean()"
    )
    what = f"masked_mean: of the elements under the mask, {hidden} inf or NaN"
    if arrived is None:
        warn(
            f"{what}, and whether the gradient is too does not show (the losses were compiled or checkpointed as a "
            f"whole, or parameters are sharded). Where a backward pass multiplies the zero that arrives by NaN, every "
            f"parameter is NaN: {fix}"
        )
    elif not all(bool(gradient.isfinite().all()) for gradient in map(dense_values, arrived)):
        raise LossError(f"{what}, and 0 times that is NaN in the gradient of every parameter: {fix}")
