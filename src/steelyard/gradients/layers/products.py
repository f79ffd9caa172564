"""Gramians by inner products of a layer's inputs and of what arrives at its output, and when that is worth it."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.base.float64 import at_least, double, float64_device
from steelyard.gradients.row_products import inner_products

_MOST_CANCELLATION = 50.0
"""float32 keeps ``G_ij`` to ``eps`` times this, relative to ``√(G_ii G_jj)``."""
AT_A_TIME = 4
"""Tasks whose products are held at once."""


def products(A: Tensor, D: Tensor, bias: bool) -> Tensor:
    """``⟨D_iᵀA, D_jᵀA⟩ = ⟨D_i, (AAᵀ) D_j⟩`` for ``A [N, in]`` and ``D [T, N, out]``; a bias adds 1 to ``AAᵀ``.

    Where the samples' gradients cancel (inputs far from zero before a batch norm), formed gradients lose precision
    once and this its square: what float32 cannot hold is done in float64.
    """
    precise = torch.promote_types(torch.promote_types(A.dtype, D.dtype), torch.float32)
    A, D = at_least(A, precise), at_least(D, precise)
    K = kernel_of(A, bias)
    total = _product(K, D)
    if precise == torch.float32 and cancels(K, D, total.diagonal()):
        total = _product(kernel_of(double(A), bias), double(D))
    return total


def kernel_of(A: Tensor, bias: bool) -> Tensor:
    """``AAᵀ``, with a 1 added for a bias."""
    K = A @ A.T
    return K.add_(1) if bias else K


def _product(K: Tensor, D: Tensor) -> Tensor:
    """``⟨D_i, K D_j⟩``; some tasks at a time, so that ``K D`` is never held and each pair is multiplied once."""
    tasks, flat = len(D), D.flatten(1)
    total = flat.new_zeros(tasks, tasks, dtype=torch.float64, device=float64_device(flat.device))
    for start in range(0, tasks, AT_A_TIME):
        part = torch.matmul(K, D[start : start + AT_A_TIME]).flatten(1)
        total[start : start + len(part), start:] = inner_products(part, flat[start:])
        del part  # before the next one comes
    return total.triu() + total.triu(1).T


def cancels(K: Tensor, D: Tensor, squares: Tensor) -> bool:
    """Whether the tasks' squared norms lose what float32 should hold: each against the sum of its samples' own.

    That sum is the diagonal if no two samples met; it is no more than the longest input with all of the gradient, which
    is cheaper to know and mostly enough.
    """
    kept, lengths = _MOST_CANCELLATION * squares, double(K.diagonal())
    most = lengths.max() * double(torch.linalg.vector_norm(D.flatten(1), dim=1)).square()
    if not bool((most > kept).any()):
        return False
    samples = double(torch.linalg.vector_norm(D, dim=2)).square()
    return cancel(samples @ lengths, squares)


def cancel(own: Tensor, squares: Tensor) -> bool:
    """Whether squared norms lose what float32 should hold, against the sum of the samples' own."""
    return bool((own > _MOST_CANCELLATION * squares).any())


def products_are_worth(rows: int, inputs: int, outputs: int, tasks: int) -> bool:
    """``N² (in + T out) + T² N out`` multiplications, against ``T N in out + T² in out`` for ``T`` weight gradients."""
    by_products = rows * rows * (inputs + tasks * outputs) + tasks * tasks * rows * outputs
    by_gradients = tasks * rows * inputs * outputs + tasks * tasks * inputs * outputs
    return by_products < by_gradients
