"""Norms and inner products of rows of numbers ``[T, P]``, to their own precision, whatever their scale and length."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.float64 import double

# Squared norms within this range are sums of float32 squares that neither overflowed nor underflowed.
_SAFE_SQUARES = (1e-24, 1e30)
# Numbers of a row: as long as half a megabyte of two rows, so that a block is read from the cache.
_ADDED_AS_THEY_ARE = 2**16


def squared_norms_of_rows(matrix: Tensor) -> Tensor:
    """``‖J_k‖²`` as ``[T]`` float64, to the precision of ``J [T, P]`` whatever its scale and its length.

    The whole of ``J`` in float64 is a copy that takes several times as long as its norms do: it is made where squares
    of its own numbers overflow or underflow.
    """
    squares = torch.stack([double(torch.linalg.vector_norm(part, dim=1)).square() for part in _parts(matrix)]).sum(0)
    if not is_safe(squares):
        squares = torch.linalg.vector_norm(double(matrix), dim=1).square()
    return squares


def gramian_of_rows(matrix: Tensor) -> Tensor:
    """``J Jᵀ`` as float64, to the precision of ``J [T, P]`` whatever its scale and its length."""
    total = inner_products(matrix, matrix)
    if not is_safe(total.diagonal()):
        total = double(matrix) @ double(matrix).T
    return total


def inner_products(first: Tensor, second: Tensor) -> Tensor:
    """``J₁ J₂ᵀ`` as float64, of numbers whose products float32 holds."""
    parts = zip(_parts(first), _parts(second), strict=True)
    total: Tensor = torch.stack([double(one @ other.T) for one, other in parts]).sum(0)
    return total


def _parts(matrix: Tensor) -> tuple[Tensor, ...]:
    """Blocks of columns whose products may be added in the matrix's own precision; their sums are added in float64.

    On the CPU alone: its kernels add a long row into one number, which at 10⁷ numbers has lost three digits.
    """
    return torch.split(matrix, _ADDED_AS_THEY_ARE, dim=1) if matrix.device.type == "cpu" else (matrix,)


def is_safe(squares: Tensor) -> bool:
    """Whether squared norms are sums of float32 squares that neither overflowed nor underflowed."""
    low, high = map(float, torch.stack(torch.aminmax(squares)).tolist())  # the device is waited for once
    return _SAFE_SQUARES[0] < low and high < _SAFE_SQUARES[1]
