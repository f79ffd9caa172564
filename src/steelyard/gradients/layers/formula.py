"""What a layer's formula is: which node of the graph it reads, and the Gramian that it makes there."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steelyard.gradients.graph import Node, held_elsewhere


@dataclass(frozen=True)
class Match:
    """One use of a layer in the graph.

    Attributes:
        leaves: the accumulating nodes of the parameters that the formula covers, in the formula's order.
        through: nodes between the layer's node and those leaves (the transposition of a weight, autocast's cast of it),
            which belong to it.
        inputs: what the formula needs of the forward pass.
        node: the layer's node, for formulas that need its settings.
    """

    leaves: tuple[Node, ...]
    through: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    node: Node = None

    def to(self, device: torch.device) -> Match:
        """With its inputs there."""
        return replace(self, inputs=tuple(each.to(device) for each in self.inputs))


Find = Callable[[Node], Match | None]
Uses = Sequence[Match]


@dataclass(frozen=True)
class Formula:
    """How a kind of layer makes its Gramian.

    Attributes:
        gramian: ``gramian(uses, output gradients [T, …] of each use) -> [T, T]``, float32 or better. It is asked once
            more, with gradients in float64, where squares in float32 overflow or vanish.
        worth: ``worth(uses, T)``, whether that is cheaper than autograd's own gradients of these parameters.
        bias: whether the leaves after the first are biases, which the formula leaves out where they are not there.
        as_linear: ``as_linear(uses, output gradients) -> (A, D)`` where the Gramian is that of a linear layer,
            ``⟨D_i, (AAᵀ) D_j⟩`` with a 1 added for a bias; then tasks may be read some at a time.
    """

    gramian: Callable[[Uses, Sequence[Tensor]], Tensor]
    worth: Callable[[Uses, int], bool]
    bias: bool = False
    as_linear: Callable[[Uses, Sequence[Tensor]], tuple[Tensor, Tensor]] | None = None

    def asked(self, found: Match, accumulating: Container[Node]) -> Match:
        """The use without a bias that nobody asked for."""
        first, *others = found.leaves
        if not self.bias or not others or all(leaf in accumulating for leaf in others):
            return found
        return replace(found, leaves=(first, *(leaf for leaf in others if leaf in accumulating)))


_FORMULAS: dict[str, tuple[tuple[Find, Formula], ...]] = {}


def gramian_of(node_name: str, formula: Formula) -> Callable[[Find], Find]:
    """Register a layer: the decorated function recognises its node, ``formula`` makes the Gramian.

    Of several with the same node the one registered last is asked first.

    Example:
        >>> from steelyard.gradients.layers import Formula, Match, gramian_of
        >>> def products(uses, gradients):  # of y = x * weight: the weight's gradient is the sum of x D over the rows
        ...     rows = sum((use.inputs[0] * D).flatten(1, -2).sum(1) for use, D in zip(uses, gradients))
        ...     return rows @ rows.T
        >>> @gramian_of("ScaleByWeightBackward", Formula(products, worth=lambda uses, tasks: True))
        ... def scale(node):
        ...     _, (weight, _) = node.next_functions
        ...     return Match(leaves=(weight,), through=(), inputs=(node.saved_tensors[0],))
    """

    def register(find: Find) -> Find:
        _FORMULAS[node_name] = ((find, formula), *_FORMULAS.get(node_name, ()))
        return find

    return register


def match(node: Node) -> tuple[Match, Formula] | None:
    """The registered layer behind a node, if it is one and looks as expected."""
    entries = _FORMULAS.get(node.name())
    if entries is None or held_elsewhere(node) is not None:  # to read its input would run a checkpointed block again
        return None
    return next(((found, formula) for find, formula in entries if (found := find(node)) is not None), None)


def shape_of(leaf: Node) -> tuple[int, ...]:
    """The shape of the parameter behind its accumulating node; empty for any other node."""
    variable = getattr(leaf, "variable", None)
    return () if variable is None else tuple(variable.shape)


def joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def source_of(node: Node, *through: Node) -> tuple[Node, tuple[Node, ...]]:
    """The leaf behind a node, or what else it is made of, and the nodes between: autocast casts a parameter first."""
    if node.name() == "ToCopyBackward0":
        (behind, _), *_ = node.next_functions
        return behind, (*through, node)
    return node, through
