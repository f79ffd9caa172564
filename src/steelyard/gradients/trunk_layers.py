"""Which layers of a trunk a formula reads, and which parameters are left to autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steelyard.gradients.graph import (
    TRUNK,
    Edge,
    Node,
    Survey,
)
from steelyard.gradients.layers import Formula, Match, match


@dataclass(frozen=True)
class TrunkLayer:
    """A layer with a formula, and its uses in the graph."""

    formula: Formula
    uses: tuple[tuple[Node, Match], ...]

    @property
    def edges(self) -> list[Edge]:
        """Where the gradients arrive that the formula needs, one for each use."""
        return [(node, 0) for node, _ in self.uses]


def trunk_layers(found: Survey, tasks: int) -> tuple[list[TrunkLayer], dict[Tensor, None]]:
    """Layers whose every use is known and whose formula is worth it, and the parameters of all others.

    A layer in the middle of a network leads on to parameters that were not asked for: what arrives at its output, and
    what it saved of its input, is all that a formula needs.

    A table that is also the weight of a linear layer has uses of two formulas, and neither counts what the other's
    uses add: it is left to autograd.
    """
    uses: dict[tuple[tuple[Node, ...], Formula], list[tuple[Node, Match]]] = {}
    accumulating = set(found.leaves.values())
    for node, kind in found.leads_to.items():
        if kind & TRUNK and (known := match(node)) is not None:
            asked = known[1].asked(known[0], accumulating)
            uses.setdefault((asked.leaves, known[1]), []).append((node, asked))
    layers: list[TrunkLayer] = []
    covered: set[Node] = set()
    for (leaves, formula), nodes in uses.items():
        plain = accumulating.issuperset(leaves) and not any(_is_special(leaf.variable) for leaf in leaves)
        worth = plain and formula.worth([found for _, found in nodes], tasks)
        if worth and all(_complete(found, leaf, nodes) for leaf in leaves):
            layers.append(TrunkLayer(formula, tuple(nodes)))
            covered.update(leaves)
    return layers, {parameter: None for parameter, leaf in found.leaves.items() if leaf not in covered}


def _is_special(parameter: Tensor) -> bool:
    """Whether its gradient is not what a formula says: complex, or changed by a hook."""
    return parameter.is_complex() or bool(parameter._backward_hooks)


def _complete(found: Survey, leaf: Node, uses: Sequence[tuple[Node, Match]]) -> bool:
    """Whether each edge into a parameter belongs to a matched use, once; else their formula would miss a part of it.

    A weight enters through its transposition, or a cast to lower precision. One that is also the layer's input
    (``W Wᵀ``) has an edge too many.
    """
    between = {node for _, each in uses for node in each.through}
    entered: list[Node] = []
    stack = list(found.consumers[leaf])
    while stack:
        consumer = stack.pop()
        if consumer in between:
            stack.extend(found.consumers[consumer])
        else:
            entered.append(consumer)
    return len(entered) == len(uses) and {node for node, _ in uses}.issuperset(entered)
