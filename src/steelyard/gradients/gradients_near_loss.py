"""What a loss sends to where it meets its network: to the nearest layers, no further.

Enough to know whether a gradient is zero or NaN, for a small part of a backward pass, and without what lies behind:
compiled functions, checkpoints and data-parallel wrappers, none of which wants to be looked through.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from steelyard.gradients.differentiation import differentiate, unchecked
from steelyard.gradients.graph import COMPILED, REENTRANT, Node, held_elsewhere, precision_of
from steelyard.gradients.wrappers import SINK
from steelyard.gradients.zero_gradients import fully_sharded

_CLOSED = (COMPILED, REENTRANT, SINK)
_CHOOSING = ("Select", "Unbind", "Slice", "Split", "Index", "View", "Squeeze", "Alias", "Clone", "ToCopy", "Mul", "Div")
_LAYERS = ("AddmmBackward", "MmBackward", "BmmBackward", "BaddbmmBackward", "ConvolutionBackward", "LinearBackward")


def arrives_nearby(start: Tensor, seed: Tensor | None = None) -> list[Tensor] | None:
    """The gradients of a tensor at the nearest layers and leaves; the graph is kept.

    Args:
        start: a loss, or losses per element.
        seed: what is sent; ones for a loss where it is not given.

    Returns:
        ``None`` where nothing can be seen: the tensor comes out of a closed function itself, or parameters are sharded
        and the look of one rank alone would keep the others waiting.
    """
    root = get_gradient_edge(start).node
    if root.name() in _CLOSED or fully_sharded():
        return None
    inputs: dict[Any, Any] = {}
    seen, nodes, stack = {root}, [], [root]
    while stack:
        node = stack.pop()
        nodes.append(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            inputs[node] = leaf
        for following, output in node.next_functions:
            if following is None:
                continue
            if following.name() in _CLOSED or following.name().startswith(_LAYERS):
                inputs[following, output] = GradientEdge(following, output)
            elif following not in seen:
                seen.add(following)
                stack.append(following)
    float16 = seed is None and precision_of(nodes, [start]).float16
    with torch.enable_grad(), unchecked():
        found = differentiate(start, list(inputs.values()), float16, seed)
    return [gradient for gradient in found if gradient is not None]


def moves_nothing(loss: Tensor) -> bool | None:
    """Whether the gradient of a loss is exactly zero; ``None`` where that cannot be seen."""
    found = arrives_nearby(loss)
    if found is None:
        return True if _constant(loss) else None
    return not any(bool(dense_values(gradient).any()) for gradient in found)


def dense_values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, of a sparse one those that it holds."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def cut_from_closed(loss: Tensor) -> Node | None:
    """The compiled or checkpointed function that a loss comes out of, by itself or as an element of a tensor."""
    node: Node = get_gradient_edge(loss).node
    while node.name() not in (COMPILED, REENTRANT):
        following = [each for each, _ in node.next_functions if each is not None]
        if len(following) != 1 or not node.name().startswith(_CHOOSING):
            return None
        node = following[0]
    return node


def _constant(loss: Tensor) -> bool:
    """Whether every way from a loss to a layer passes a product with a constant zero, as in ``0 * outputs.sum()``."""
    root = get_gradient_edge(loss).node
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        if _times_zero(node):
            continue
        if hasattr(node, "variable") or node.name() in _CLOSED or node.name().startswith(_LAYERS):
            return False
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return True


def _times_zero(node: Node) -> bool:
    if not node.name().startswith("MulBackward") or held_elsewhere(node) is not None:
        return False
    (first, _), (second, _) = node.next_functions
    if first is not None and second is not None:
        return False
    factor = node._saved_other if first is not None else node._saved_self
    return isinstance(factor, Tensor) and not bool(factor.any())
