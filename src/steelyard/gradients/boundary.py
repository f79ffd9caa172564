"""Where a trunk ends and heads begin: there the balanced gradient is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.errors import SharedError
from steelyard.gradients.differentiation import (
    refused_compiled_whole,
)
from steelyard.gradients.graph import (
    Edge,
    Survey,
    is_compiled,
    precision_of,
)


@dataclass(frozen=True)
class Boundary:
    """Where the balanced gradient is sent: where a trunk ends and heads begin, or features.

    Attributes:
        edges: in the graph.
        coarsest: the dtype with the largest rounding on the way there from the losses.
        at_depths: whether some of the edges lie behind others.
    """

    edges: tuple[Edge, ...]
    coarsest: torch.dtype
    at_depths: bool = False

    @classmethod
    def of(cls, found: Survey, losses: Sequence[Tensor]) -> Boundary:
        """Of a trunk.

        Raises:
            SharedError: its gradients and those of heads cannot be told apart.
        """
        edges = tuple(found.boundary)
        _check_boundary(found, edges)
        heads = precision_of((node for node in found.leads_to if not found.in_trunk(node)), losses)
        return cls(edges, heads.coarsest, _at_depths(found, edges))


def _check_boundary(found: Survey, boundary: tuple[Edge, ...]) -> None:
    """Plain heads replace what arrives where the trunk ends; that must be all that arrives there from the tasks."""
    if found.unclear:
        raise SharedError(
            f"a leaf tensor of shape {tuple(found.unclear[0].shape)} that requires grad is no nn.Parameter, and the "
            "graph does not show whether it is the weight of a head, which plain heads leave alone: make it an "
            "nn.Parameter if it is, pass the tensor that the heads read as shared=, or use heads='weighted'"
        )
    ends = {node for node, _ in boundary}
    leaf = next((parameter for parameter, node in found.leaves.items() if node in ends), None)
    if leaf is not None:
        if any(is_compiled(each) for each in found.consumers[found.leaves[leaf]]):
            raise refused_compiled_whole()
        raise SharedError(
            f"a trunk parameter of shape {tuple(leaf.shape)} is used by the heads too (tied weights, or shared= "
            "is itself a head), so its trunk and head gradients cannot be told apart: pass the module that the tasks "
            "share or the tensor that the heads read, with look= for a layer in the middle of the trunk; for tied "
            "weights, use heads='weighted'"
        )


def _at_depths(found: Survey, boundary: tuple[Edge, ...]) -> bool:
    """Whether something of the trunk leads on from one edge of the boundary to another.

    It does where heads read the trunk at several depths, and where a loss without a head of its own (a contrastive
    one, a penalty) reads what the heads of other tasks read.
    """
    return any(
        found.in_trunk(consumer)
        for node in (*(node for node, _ in boundary), *found.private)
        for consumer in found.consumers.get(node, ())
        if consumer not in found.private
    )
