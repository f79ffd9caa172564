"""Task gradients at features behind linear heads, kept as the two factors they are made of.

Behind a head ``y_k = z W_kᵀ + b_k`` the gradient at the features is ``d_k = D_k W_k``, with ``D_k [N, c]`` what arrives
at the head's output. Inner products and weighted sums follow from the factors, and the ``T`` gradients ``[N, width]``,
which no plain step has, are never formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from steelyard.base.float64 import double
from steelyard.gradients.differentiation import differentiate
from steelyard.gradients.graph import Edge, Node
from steelyard.gradients.row_products import is_safe
from steelyard.gradients.rows import precision_between
from steelyard.gradients.wrappers import behind_wrapper

_LARGEST_HEAD = 200
"""Nodes; a loss that also reads the trunk elsewhere is not followed through all of it."""
_MOST_CANCELLATION = 50.0
"""float32 keeps ``G_ij`` to ``2 eps`` times this, relative to ``√(G_ii G_jj)``."""


@dataclass(frozen=True)
class Factors:
    """Task gradients ``d_k = D_k W_k`` at one feature tensor.

    Attributes:
        arriving: ``D [T, N, c]``, zero beyond a head's own outputs; float32 or better.
        weights: ``W [T, c, width]``, likewise.
        tensors: the feature tensor.
        coarsest: the dtype with the largest rounding on the way there.
    """

    arriving: Tensor
    weights: Tensor
    tensors: tuple[Tensor, ...]
    coarsest: torch.dtype

    def __len__(self) -> int:
        return len(self.arriving)

    def shaped(self, direction: Tensor) -> tuple[Tensor, ...]:
        """A vector ``[N · width]``, shaped like the features."""
        return (direction.view(self.tensors[0].shape),)

    def combine(self, weights: Tensor) -> Tensor:
        """``Σ_k w_k d_k`` as ``[N · width]``; one row for each row of weights."""
        scaled = weights.to(self.arriving)[..., None, None] * self.arriving
        side_by_side = scaled.transpose(-3, -2).flatten(-2)
        return (side_by_side @ self.weights.flatten(0, 1)).flatten(-2)

    def select(self, positions: Sequence[int]) -> Factors:
        """The factors of the tasks at ``positions``."""
        kept = list(positions)
        return Factors(self.arriving[kept], self.weights[kept], self.tensors, self.coarsest)

    def squared_norms(self) -> Tensor:
        """``‖d_k‖² = ⟨D_kᵀD_k, W_kW_kᵀ⟩`` as ``[T]`` float64."""
        D, W = double(self.arriving), double(self.weights)
        return ((D.mT @ D) * (W @ W.mT)).sum((1, 2))

    def gramian(self) -> Tensor:
        """``G_ij = ⟨D_iᵀD_j, W_iW_jᵀ⟩`` as ``[T, T]`` float64.

        Outputs of a head whose contributions cancel lose precision here as squares, where formed gradients lose it
        once: what float32 cannot hold is done in float64.
        """
        total, sizes = _gramian(self.arriving, self.weights)
        norms = double(torch.linalg.vector_norm(self.arriving, dim=(1, 2))).square()
        cancels = bool((sizes.square() > _MOST_CANCELLATION * total.diagonal()).any())
        if is_safe(total.diagonal()) and is_safe(norms) and not cancels:
            return total
        return _gramian(double(self.arriving), double(self.weights))[0]


def _gramian(arriving: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The Gramian, and per task ``Σ_c ‖D_kc‖ ‖W_kc‖``: what its entries would be if nothing cancelled."""
    tasks, _, outputs = arriving.shape
    D, W = arriving.transpose(0, 1).flatten(1), weights.flatten(0, 1)
    DD, WW = double(D.T @ D), double(W @ W.T)
    sizes = (DD.diagonal() * WW.diagonal()).sqrt().view(tasks, outputs).sum(1)
    return (DD * WW).view(tasks, outputs, tasks, outputs).sum((1, 3)), sizes


def factors(losses: Sequence[Tensor], features: Sequence[Tensor]) -> Factors | None:
    """The task gradients' factors, where every task reads the features through one linear layer of its own.

    None where one does otherwise, or where forming the gradients is cheaper.

    Args:
        losses: scalars with a graph, which is kept for the backward pass to come.
        features: the tensors given as ``shared=``; one matrix ``[N, width]``, or there is nothing to find.
    """
    if len(features) != 1 or features[0].dim() != 2 or features[0].grad_fn is None or features[0].is_complex():
        return None
    if features[0]._backward_hooks:  # what arrives is not what the head sends
        return None
    node, output = behind_wrapper(features[0]) or get_gradient_edge(features[0])[:2]
    heads = [_head(loss.grad_fn, (node, output)) for loss in losses]
    found = [head for head in heads if head is not None]
    if len(found) < len(heads) or any(weight.untyped_storage().size() == 0 for _, weight in found):
        return None  # in the second case: sharded, and in pieces until the backward
    (rows, width), outputs = features[0].shape, max(weight.shape[1] for _, weight in found)
    tasks, columns = len(losses), len(losses) * outputs
    if columns * columns * (rows + width) > (columns + tasks * tasks) * rows * width:
        return None
    precision = precision_between(losses, features)
    if precision.float16:  # small gradients vanish on the way: formed ones are seeded high
        return None
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    arriving = features[0].new_zeros(tasks, rows, outputs, dtype=dtype)
    weights = features[0].new_zeros(tasks, outputs, width, dtype=dtype)
    for (_, weight), W in zip(found, weights, strict=True):  # all of them first: a look may send shards home again
        W[: weight.shape[1]].copy_(weight.detach().T)
    for loss, (node, weight), D in zip(losses, found, arriving, strict=True):
        (gradient,) = differentiate(loss, [GradientEdge(node, 0)], False)
        assert gradient is not None
        D[:, : weight.shape[1]].copy_(gradient)
    return Factors(arriving, weights, tuple(features), precision.coarsest)


def _head(root: Node | None, features: Edge) -> tuple[Node, Tensor] | None:
    """The linear layer ``[N, width] -> [N, c]`` through which alone a loss reads the features, and ``W_kᵀ``."""
    node = _only_consumer(root, features)
    if node is None:
        return None
    position = {"AddmmBackward0": 1, "MmBackward0": 0}.get(node.name())
    if position is None or node.next_functions[position] != features:
        return None
    if (position and node._saved_alpha != 1) or node._saved_mat2 is None:
        return None
    return node, node._saved_mat2


def _only_consumer(root: Node | None, features: Edge) -> Node | None:
    """The node that consumes the features on the way from a loss, if it is one node and consumes them once."""
    if root is None:
        return None
    consumers: list[Node] = []
    stack, seen = [root], {root}
    while stack and len(seen) <= _LARGEST_HEAD:
        node = stack.pop()
        for following, output in node.next_functions:
            if (following, output) == features:
                consumers.append(node)
            elif following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return consumers[0] if len(consumers) == 1 and not stack else None
