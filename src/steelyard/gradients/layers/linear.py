"""Linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steelyard.gradients.graph import Node
from steelyard.gradients.layers.formula import Formula, Match, Uses, gramian_of, joined, shape_of, source_of
from steelyard.gradients.layers.products import products, products_are_worth


def _linear(uses: Uses, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Uses of one weight add up, which is the same as one use on all rows."""
    A = joined([use.inputs[0] for use in uses], 0)
    return A, joined([gradient.flatten(1, -2) for gradient in gradients], 1)


def _linear_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    return products(*_linear(uses, gradients), bias=len(uses[0].leaves) > 1)


def _linear_worth(uses: Uses, tasks: int) -> bool:
    rows, width = sum(len(use.inputs[0]) for use in uses), uses[0].inputs[0].shape[1]
    return products_are_worth(rows, width, shape_of(uses[0].leaves[0])[0], tasks)


LINEAR = Formula(_linear_gramian, _linear_worth, bias=True, as_linear=_linear)


def _transposed(node: Node | None) -> tuple[Node, tuple[Node, ...]] | None:
    """The leaf behind the transposition that a linear layer makes of its weight, and the nodes between."""
    if node is None or node.name() != "TBackward0":
        return None
    return source_of(node.next_functions[0][0], node)


@gramian_of("AddmmBackward0", LINEAR)
def _linear_with_bias(node: Node) -> Match | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    (bias, _), _, (weight, _) = node.next_functions
    behind, saved = _transposed(weight), node._saved_mat1
    if behind is None or saved is None:
        return None
    leaf, through = behind
    if bias is None:
        return Match((leaf,), through, (saved.detach(),))
    bias, casts = source_of(bias)
    if shape_of(bias) != shape_of(leaf)[:1]:  # a bias that is spread over the rows otherwise
        return None
    return Match((leaf, bias), (*through, *casts), (saved.detach(),))


@gramian_of("MmBackward0", LINEAR)
def _linear_without_bias(node: Node) -> Match | None:
    _, (weight, _) = node.next_functions
    behind, saved = _transposed(weight), node._saved_self
    if behind is None or saved is None:
        return None
    return Match((behind[0],), behind[1], (saved.detach(),))
