"""Gramians of one layer's task gradients, without forming those gradients where that is cheaper.

A formula is registered for the autograd node that the layer leaves in the graph. It names the parameters it covers
and turns the gradients that arrive at the node's output into ``⟨g_i, g_j⟩`` over those parameters::

    @gramian_of("AddmmBackward0")
    def linear_with_bias(node): ...

Names of nodes and of what they save are private to torch, so everything that knows them is in this file; a node that
is not known here, or that does not look as expected, falls back to autograd on its own parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.gradients.graph import Node


@dataclass(frozen=True)
class Match:
    """One use of a layer in the graph.

    Attributes:
        leaves: the accumulating nodes of the parameters that the formula covers, in the formula's order.
        through: nodes between the layer's node and those leaves (the transposition of a weight), which belong to it.
        inputs: what the formula needs of the forward pass.
    """

    leaves: tuple[Node, ...]
    through: tuple[Node, ...]
    inputs: tuple[Tensor, ...]


Find = Callable[[Node], Match | None]
Formula = Callable[[Sequence[tuple[Tensor, ...]], Sequence[Tensor], bool], Tensor]
"""``formula(inputs of each use, output gradients [T, …] of each use, whether a bias is covered) -> [T, T]``"""

_FORMULAS: dict[str, tuple[Find, Formula]] = {}


def gramian_of(node_name: str, formula: Formula) -> Callable[[Find], Find]:
    """Register a layer: the decorated function recognises its node, ``formula`` makes the Gramian."""

    def register(find: Find) -> Find:
        _FORMULAS[node_name] = find, formula
        return find

    return register


def match(node: Node) -> tuple[Match, Formula] | None:
    """The registered layer behind a node, if it is one and looks as expected."""
    entry = _FORMULAS.get(node.name())
    if entry is None:
        return None
    found = entry[0](node)
    return None if found is None else (found, entry[1])


def linear_gramian(inputs: Sequence[tuple[Tensor, ...]], gradients: Sequence[Tensor], bias: bool) -> Tensor:
    """``⟨D_iᵀA, D_jᵀA⟩`` of a matrix product ``A W`` used once or several times.

    With inputs ``A [N, in]`` and output gradients ``D_k [N, out]`` it is ``⟨D_i, (AAᵀ) D_j⟩``:
    ``N² (in + T out) + T² N out`` multiplications, against ``T N in out + T² in out`` for forming the ``T``
    gradients; the cheaper is taken. A bias adds 1 to ``AAᵀ``, a column of ones to ``A``. Uses of one weight add up,
    which is the same as one use on all rows.
    """
    A = torch.cat([use[0].reshape(-1, use[0].shape[-1]) for use in inputs])
    D = torch.cat([gradient.reshape(len(gradient), -1, gradient.shape[-1]) for gradient in gradients], 1)
    tasks, rows, outputs = D.shape
    width = A.shape[1]
    precise = torch.promote_types(torch.promote_types(A.dtype, D.dtype), torch.float32)
    A, D = A.to(precise), D.to(precise)
    by_products = rows * rows * (width + tasks * outputs) + tasks * tasks * rows * outputs
    by_gradients = tasks * rows * width * outputs + tasks * tasks * width * outputs
    if by_products < by_gradients:
        K = A @ A.T
        if bias:
            K += 1
        return (torch.matmul(K, D).flatten(1) @ D.flatten(1).T).double()
    weights = torch.matmul(D.transpose(1, 2), A).flatten(1)
    total = (weights @ weights.T).double()
    if bias:
        sums = D.sum(1)
        total += (sums @ sums.T).double()
    return total


@gramian_of("AddmmBackward0", linear_gramian)
def _linear_with_bias(node: Node) -> Match | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    (bias, _), _, (weight, _) = node.next_functions
    saved = node._saved_mat1
    if weight is None or weight.name() != "TBackward0" or saved is None:
        return None
    leaf = weight.next_functions[0][0]
    leaves = (leaf,) if bias is None else (leaf, bias)
    return Match(leaves, (weight,), (saved.detach(),))


@gramian_of("MmBackward0", linear_gramian)
def _linear_without_bias(node: Node) -> Match | None:
    _, (weight, _) = node.next_functions
    saved = node._saved_self
    if weight is None or weight.name() != "TBackward0" or saved is None:
        return None
    return Match((weight.next_functions[0][0],), (weight,), (saved.detach(),))


def embedding_gramian(inputs: Sequence[tuple[Tensor, ...]], gradients: Sequence[Tensor], bias: bool) -> Tensor:
    """Of an embedding: gradients of equal indices add up, others are orthogonal; only occurring rows are formed."""
    indices = torch.cat([use[0].reshape(-1) for use in inputs])
    D = torch.cat([gradient.reshape(len(gradient), -1, gradient.shape[-1]) for gradient in gradients], 1)
    D = D.to(torch.promote_types(D.dtype, torch.float32))
    occurring, place = torch.unique(indices, return_inverse=True)
    summed = D.new_zeros(len(D), len(occurring), D.shape[-1]).index_add_(1, place, D).flatten(1)
    return (summed @ summed.T).double()


@gramian_of("EmbeddingBackward0", embedding_gramian)
def _embedding(node: Node) -> Match | None:
    # A padding row receives no gradient; scaling by frequency changes it: both are left to autograd.
    padding = node._saved_padding_idx
    if node._saved_scale_grad_by_freq or 0 <= padding < 2**62:
        return None
    return Match((node.next_functions[0][0],), (), (node._saved_indices,))
