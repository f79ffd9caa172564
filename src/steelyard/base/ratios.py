"""Ratios and logarithms of losses, where a loss may be exactly zero.

A loss of at least zero that is zero has reached its minimum, so its weight does not matter; what matters is that no
inf or NaN arises from it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reciprocal(scale: Tensor) -> Tensor:
    """``1 / scale``, and 1 where the scale is zero: a loss that has been exactly zero so far has no scale to remove."""
    return torch.where(scale > 0, 1 / scale, torch.ones_like(scale))


def ratio(now: Tensor, before: Tensor) -> Tensor:
    """``now / before``, and 1 (it stands still) where ``before`` is zero or, being NaN, unknown."""
    quotient = now / before
    return torch.where(quotient.isfinite() & (before != 0), quotient, torch.ones_like(quotient))


def log_of_positive(losses: Tensor) -> Tensor:
    """``log L``, and 0 where the loss is zero: such a task has left the sum of logarithms."""
    return torch.where(losses > 0, losses.log(), torch.zeros_like(losses))


def shares(weights: Tensor, present: Tensor) -> Tensor:
    """``weights`` scaled to sum to the number of tasks that ``present`` marks, and 1 for the others."""
    weights = torch.where(present, weights, torch.zeros_like(weights))
    total = weights.sum()
    scaled = torch.where(total > 0, weights * (present.sum() / total), torch.ones_like(weights))
    return torch.where(present, scaled, torch.ones_like(weights))
