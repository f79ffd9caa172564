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
Uses = Sequence[Match]


@dataclass(frozen=True)
class Formula:
    """How a kind of layer makes its Gramian.

    Attributes:
        gramian: ``gramian(uses, output gradients [T, …] of each use) -> [T, T]`` float64.
        worth: ``worth(uses, T)``, whether that is cheaper than autograd's own gradients of these parameters.
    """

    gramian: Callable[[Uses, Sequence[Tensor]], Tensor]
    worth: Callable[[Uses, int], bool]


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


def _linear_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    """``⟨D_iᵀA, D_jᵀA⟩ = ⟨D_i, (AAᵀ) D_j⟩`` for inputs ``A [N, in]`` and output gradients ``D_k [N, out]``.

    A bias adds 1 to ``AAᵀ``. Uses of one weight add up, which is the same as one use on all rows.
    """
    A = _joined([use.inputs[0] for use in uses], 0)
    D = _joined([gradient.flatten(1, -2) for gradient in gradients], 1)
    precise = torch.promote_types(torch.promote_types(A.dtype, D.dtype), torch.float32)
    A, D = A.to(precise), D.to(precise)
    K = A @ A.T
    if len(uses[0].leaves) > 1:
        K += 1
    return (torch.matmul(K, D).flatten(1) @ D.flatten(1).T).double()


def _linear_worth(uses: Uses, tasks: int) -> bool:
    """``N² (in + T out) + T² N out`` multiplications, against ``T N in out + T² in out`` for ``T`` weight gradients."""
    rows, width = sum(len(use.inputs[0]) for use in uses), uses[0].inputs[0].shape[1]
    outputs = uses[0].leaves[0].variable.shape[0]
    by_products = rows * rows * (width + tasks * outputs) + tasks * tasks * rows * outputs
    by_gradients = tasks * rows * width * outputs + tasks * tasks * width * outputs
    return bool(by_products < by_gradients)


LINEAR = Formula(_linear_gramian, _linear_worth)


def _shape(leaf: Node) -> tuple[int, ...]:
    """The shape of the parameter behind its accumulating node; empty for any other node."""
    variable = getattr(leaf, "variable", None)
    return () if variable is None else tuple(variable.shape)


def _joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


@gramian_of("AddmmBackward0", LINEAR)
def _linear_with_bias(node: Node) -> Match | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    (bias, _), _, (weight, _) = node.next_functions
    saved = node._saved_mat1
    if weight is None or weight.name() != "TBackward0" or saved is None:
        return None
    leaf = weight.next_functions[0][0]
    if bias is not None and _shape(bias) != _shape(leaf)[:1]:  # a bias that is spread over the rows otherwise
        return None
    leaves = (leaf,) if bias is None else (leaf, bias)
    return Match(leaves, (weight,), (saved.detach(),))


@gramian_of("MmBackward0", LINEAR)
def _linear_without_bias(node: Node) -> Match | None:
    _, (weight, _) = node.next_functions
    saved = node._saved_self
    if weight is None or weight.name() != "TBackward0" or saved is None:
        return None
    return Match((weight.next_functions[0][0],), (weight,), (saved.detach(),))


def _embedding_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    """Gradients of equal indices add up, others are orthogonal; only the rows that occur are formed."""
    indices = torch.cat([use.inputs[0].reshape(-1) for use in uses])
    D = _joined([gradient.flatten(1, -2) for gradient in gradients], 1)
    D = D.to(torch.promote_types(D.dtype, torch.float32))
    occurring, place = torch.unique(indices, return_inverse=True)
    summed = D.new_zeros(len(D), len(occurring), D.shape[-1]).index_add_(1, place, D).flatten(1)
    return (summed @ summed.T).double()


EMBEDDING = Formula(_embedding_gramian, lambda uses, tasks: True)


@gramian_of("EmbeddingBackward0", EMBEDDING)
def _embedding(node: Node) -> Match | None:
    # A padding row receives no gradient; scaling by frequency changes it: both are left to autograd.
    padding = node._saved_padding_idx
    if node._saved_scale_grad_by_freq or 0 <= padding < 2**62:
        return None
    return Match((node.next_functions[0][0],), (), (node._saved_indices,))
