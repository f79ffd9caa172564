"""Task gradients at some tensors: at features, one pass through each task's head and never through the trunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from steelyard.errors import SharedError
from steelyard.gradients.differentiation import compiled_whole, differentiate, refused_compiled_whole, refused_reentrant
from steelyard.gradients.graph import REENTRANT, Precision, nodes_below, precision_of
from steelyard.gradients.retained import left_as_it_was, retaining_below
from steelyard.gradients.row_products import gramian_of_rows, squared_norms_of_rows
from steelyard.gradients.wrappers import behind_wrapper


@dataclass(frozen=True)
class Rows:
    """Task gradients with respect to some tensors, side by side.

    Attributes:
        matrix: ``[T, P]``, ``P`` the number of elements of all tensors, two for a complex one; float32 or better.
        tensors: feature tensors, or parameters; give the shapes.
        coarsest: the dtype with the largest rounding on the way there.
        reached: ``[T, n]`` float64, the numbers in each tensor that the loss depends on: all of them, or none.
    """

    matrix: Tensor
    tensors: tuple[Tensor, ...]
    coarsest: torch.dtype
    reached: Tensor | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    def shaped(self, direction: Tensor) -> tuple[Tensor, ...]:
        """A vector ``[P]``, cut and shaped like the tensors."""
        pieces = torch.split(direction, [numbers_in(tensor) for tensor in self.tensors])
        return tuple(
            torch.view_as_complex(piece.view(*tensor.shape, 2)) if tensor.is_complex() else piece.view(tensor.shape)
            for piece, tensor in zip(pieces, self.tensors, strict=True)
        )

    def combine(self, weights: Tensor) -> Tensor:
        """``Σ_k w_k d_k`` as ``[P]``; one row for each row of weights."""
        combined: Tensor = weights.to(self.matrix) @ self.matrix
        return combined

    def select(self, positions: Sequence[int]) -> Rows:
        """The rows of the tasks at ``positions``."""
        chosen = list(positions)
        reached = None if self.reached is None else self.reached[chosen]
        return Rows(self.matrix[chosen], self.tensors, self.coarsest, reached)

    def squared_norms(self) -> Tensor:
        """``‖d_k‖²`` as ``[T]`` float64, exact to the matrix's precision whether norms are 1e-30 or 1e30."""
        return squared_norms_of_rows(self.matrix)

    def gramian(self) -> Tensor:
        """``G_ij = ⟨d_i, d_j⟩`` as ``[T, T]`` float64, to the matrix's precision relative to ``√(G_ii G_jj)``."""
        return gramian_of_rows(self.matrix)


def numbers_in(tensor: Tensor) -> int:
    """Real numbers in a tensor."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of the parts of a complex number; of any other, its own."""
    return dtype.to_real() if dtype.is_complex else dtype


def real_numbers(gradient: Tensor) -> Tensor:
    """A gradient as one vector of real numbers, whose inner products are those of a step.

    A complex gradient counts as its real and imaginary parts: ``a aᵀ`` of complex numbers would be no length.
    """
    if gradient.is_sparse:
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj())
    return gradient.reshape(-1)


def task_rows(
    tasks: Sequence[str], losses: Sequence[Tensor], tensors: tuple[Tensor, ...], workspace: Tensor | None = None
) -> Rows:
    """Differentiate every loss with respect to some tensors; zero where a loss does not depend on one.

    Args:
        tasks: names, for messages.
        losses: scalars with a graph, which is kept for the backward pass to come.
        tensors: the features ``z`` that the heads read, or the trunk's parameters.
        workspace: a matrix of an earlier step that nobody needs any more; written over if it fits, since fresh
            memory of this size costs as much as the gradients.

    Cost: one backward pass from each loss to the tensors; ``T x P`` numbers.
    """
    dtype = functools.reduce(torch.promote_types, (real_dtype(tensor.dtype) for tensor in tensors), torch.float32)
    sizes = [numbers_in(tensor) for tensor in tensors]
    shape, device = (len(losses), sum(sizes)), tensors[0].device
    fits = workspace is not None and workspace.shape == shape and (workspace.dtype, workspace.device) == (dtype, device)
    matrix = workspace if workspace is not None and fits else torch.empty(shape, dtype=dtype, device=device)
    precision = precision_between(losses, tensors)
    places = [tensor if (edge := behind_wrapper(tensor)) is None else GradientEdge(*edge) for tensor in tensors]
    reached: list[list[int]] = []
    # In front of features are heads alone, where a walk would take as long as a part of the look.
    with left_as_it_was(retaining_below(losses)) if isinstance(tensors[0], nn.Parameter) else nullcontext():
        for row, loss in zip(matrix, losses, strict=True):
            gradients = differentiate(loss, places, precision.float16)
            for piece, gradient in zip(torch.split(row, sizes), gradients, strict=True):
                if gradient is None:
                    piece.zero_()
                else:
                    piece.copy_(real_numbers(gradient))
            reached.append([0 if gradient is None else size for gradient, size in zip(gradients, sizes, strict=True)])
    if not any(map(any, reached)):
        if compiled_whole(losses, tensors):
            raise refused_compiled_whole()
        raise SharedError(
            f"none of the losses ({', '.join(tasks)}) depends on shared=: pass the very tensor that the heads "
            "were called with, not a copy of it, nor a detached or recomputed one (trainers copy what a model returns "
            "in mixed precision and under DDP: steelyard.features_of(module) takes it where it is made)"
        )
    return Rows(matrix, tensors, precision.coarsest, torch.tensor(reached, dtype=torch.float64, device="cpu"))


def precision_between(losses: Sequence[Tensor], tensors: Sequence[Tensor]) -> Precision:
    """The precision on the way from the losses to the tensors."""
    ends = [(behind_wrapper(tensor) or get_gradient_edge(tensor))[0] for tensor in tensors]
    between = list(nodes_below([loss.grad_fn for loss in losses], ends))
    if isinstance(tensors[0], nn.Parameter) and any(node.name() == REENTRANT for node in between):
        raise refused_reentrant()
    return precision_of(between, (*losses, *tensors))
