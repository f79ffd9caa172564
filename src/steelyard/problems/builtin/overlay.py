"""Two images laid over each other, the construction of Multi-MNIST (Sabour, Frosst, Hinton, 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def overlay(left: Tensor, right: Tensor, offset: int) -> Tensor:
    """Pixel-wise maximum of two images on one black canvas, the right one shifted by `offset` on both axes.

    Args:
        left, right: uint8 [N, S, S].
        offset: pixels between the upper left corners.

    Returns:
        uint8 [N, S + offset, S + offset].
    """
    count, size = left.shape[0], left.shape[-1]
    canvas = left.new_zeros(count, size + offset, size + offset)
    canvas[:, :size, :size] = left
    corner = canvas[:, offset:, offset:]
    torch.maximum(corner, right, out=corner)
    return canvas
