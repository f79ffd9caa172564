"""Task gradients at the features: one pass through each task's head, never through the trunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.errors import SharedError

# float16 gradients below 6e-8 vanish before any gradient scaler sees them: the look is seeded high and divided again.
_HALF_SEED = 65536.0

# Squared norms within this range are sums of float32 squares that neither overflowed nor underflowed.
_SAFE_SQUARES = (1e-24, 1e30)


@dataclass(frozen=True)
class FeatureRows:
    """``d_k = ∂L_k/∂z`` for every task: one matrix ``[T, numel(z)]`` per feature tensor ``z``, float32 or better."""

    matrices: tuple[Tensor, ...]
    features: tuple[Tensor, ...]

    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """``Σ_k w_k d_k``, shaped like the features."""
        return tuple(
            (weights.to(matrix) @ matrix).view(feature.shape)
            for matrix, feature in zip(self.matrices, self.features, strict=True)
        )

    def select(self, positions: Sequence[int]) -> FeatureRows:
        """The rows of the tasks at ``positions``."""
        return FeatureRows(tuple(matrix[list(positions)] for matrix in self.matrices), self.features)

    def per_task(self) -> list[tuple[Tensor, ...]]:
        """One tuple per task of views shaped like the features."""
        shaped = [
            matrix.view(len(matrix), *feature.shape)
            for matrix, feature in zip(self.matrices, self.features, strict=True)
        ]
        return list(zip(*shaped, strict=True))

    def squared_norms(self) -> Tensor:
        """``‖d_k‖²`` as ``[T]`` float64, exact to the matrices' precision whether norms are 1e-30 or 1e30."""
        norms = torch.stack([torch.linalg.vector_norm(matrix, dim=1) for matrix in self.matrices])
        squares = norms.double().square().sum(0)
        if is_safe(squares):
            return squares
        norms = torch.stack([torch.linalg.vector_norm(_double(matrix), dim=1) for matrix in self.matrices])
        return norms.square().sum(0)

    def gramian(self) -> Tensor:
        """``G_ij = ⟨d_i, d_j⟩`` as ``[T, T]`` float64, to the matrices' precision relative to ``√(G_ii G_jj)``."""
        total = functools.reduce(torch.add, ((matrix @ matrix.T).double() for matrix in self.matrices))
        if is_safe(total.diagonal()):
            return total
        return functools.reduce(torch.add, (_double(matrix) @ _double(matrix).T for matrix in self.matrices))


def feature_rows(tasks: Sequence[str], losses: Sequence[Tensor], features: tuple[Tensor, ...]) -> FeatureRows:
    """Differentiate every loss with respect to the features; zero where a loss does not depend on one.

    Args:
        tasks: names, for messages.
        losses: scalars with a graph, which is kept for the backward pass to come.
        features: the tensors ``z`` that the heads read.

    Cost: one backward pass from each loss to ``z``; ``T x numel(z)`` numbers.
    """
    half = any(feature.dtype == torch.float16 for feature in features)
    matrices = tuple(
        torch.empty(len(losses), feature.numel(), dtype=_row_dtype(feature), device=feature.device)
        for feature in features
    )
    reached = False
    for position, loss in enumerate(losses):
        seed = torch.full_like(loss, _HALF_SEED) if half and loss.dtype != torch.float16 else None
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss, features, seed, retain_graph=True, allow_unused=True
        )
        for matrix, gradient in zip(matrices, gradients, strict=True):
            if gradient is None:
                matrix[position].zero_()
            else:
                matrix[position].copy_(gradient.reshape(-1))
                reached = True
        if seed is not None:
            for matrix in matrices:
                matrix[position] /= _HALF_SEED
    if not reached:
        raise SharedError(
            f"none of the losses ({', '.join(tasks)}) depends on shared=: pass the very tensor that the heads "
            "were called with, not a copy of it, nor a detached or recomputed one"
        )
    return FeatureRows(matrices, features)


def _row_dtype(feature: Tensor) -> torch.dtype:
    return torch.promote_types(feature.dtype, torch.float32)


def _double(matrix: Tensor) -> Tensor:
    return matrix.cpu().double() if matrix.device.type == "mps" else matrix.double()


def is_safe(squares: Tensor) -> bool:
    """Whether squared norms are sums of float32 squares that neither overflowed nor underflowed."""
    low, high = squares.min().item(), squares.max().item()
    return _SAFE_SQUARES[0] < low and high < _SAFE_SQUARES[1]
