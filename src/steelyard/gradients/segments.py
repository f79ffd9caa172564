"""Where a trunk can be cut, so that its layers' task gradients need not be held all at once.

A cut is one edge of the graph through which everything below it is reached: the stream between two blocks of a network.
The task gradients at a cut replace the losses as starting points for what lies below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steelyard.gradients.graph import METADATA, TRUNK, Edge, Node, Survey, held_elsewhere

_WORTH = 2 / 3
"""Cut where no more than this part of the memory is left: each segment costs one more call of autograd per task."""


@dataclass
class Segment:
    """A stretch of the graph, walked backwards.

    Attributes:
        end: the edge at which the next one starts; ``None`` for the last.
        nodes: its nodes.
        parameters: trunk parameters used in it, and nowhere else.
    """

    end: Edge | None = None
    nodes: set[Node] = field(default_factory=set)
    parameters: list[Tensor] = field(default_factory=list)


def segments(graph: Survey, held: Callable[[Segment], int]) -> list[Segment]:
    """Cut the graph from the losses to the trunk's parameters, if that saves memory worth the calls.

    Args:
        graph: as it was walked.
        held: how many numbers a segment holds per task, next to the gradient at its ends.
    """
    parts = pieces(graph) if METADATA else [in_one_piece(graph)]
    if len(parts) == 1:
        return parts
    most = max(held(piece) + _ends(before, piece) for before, piece in zip([None, *parts], parts, strict=False))
    if most > _WORTH * held(_joined(parts)):
        return [_joined(parts)]
    kept: list[Segment] = []
    for piece in parts:
        longer = _joined([kept[-1], piece]) if kept else piece
        if kept and held(longer) + _ends(kept[-2] if len(kept) > 1 else None, longer) <= most:
            kept[-1] = longer
        else:
            kept.append(piece)
    return kept


def pieces(graph: Survey) -> list[Segment]:
    """The graph between neighbouring cuts.

    Nodes are taken in the reverse order of their creation, as autograd does. What has been reached and not yet taken
    is open; where a single edge is open, everything below hangs on it. A parameter stays open until all its uses are
    taken, so that no parameter is used in two pieces. A checkpointed block stays whole: each piece of it would run it
    again for every task.
    """
    parameter_of = {node: parameter for parameter, node in graph.leaves.items()}
    nodes = [node for node, kind in graph.leads_to.items() if kind & TRUNK and node not in parameter_of]
    created = {node: node._sequence_nr() for node in nodes}
    nodes.sort(key=created.__getitem__, reverse=True)
    parts = [Segment()]
    taken: set[Node] = set()
    waiting = set(graph.roots) & set(nodes)
    open_edges: dict[Node, set[int]] = {}
    open_uses: dict[Node, int] = {}
    blocks = [_checkpointed(node) for node in nodes]
    last = {block: place for place, block in enumerate(blocks) if block is not None}
    inside, everyone = -1, (1 << len(graph.roots)) - 1
    for place, node in enumerate(nodes):
        if not taken.issuperset(each for each in graph.consumers.get(node, ()) if each in created):
            return [in_one_piece(graph)]  # made by several threads: the order says nothing
        outputs = open_edges.get(node, set())
        if (
            place > inside
            and not waiting
            and not open_uses
            and len(open_edges) == len(outputs) == 1
            and graph.reached_by[node] == everyone
        ):
            parts[-1].end = node, next(iter(outputs))
            parts.append(Segment())
        taken.add(node)
        inside = max(inside, last.get(blocks[place], -1))
        waiting.discard(node)
        open_edges.pop(node, None)
        parts[-1].nodes.add(node)
        for following, output in node.next_functions:
            if following in parameter_of:
                open_uses[following] = open_uses.get(following, len(graph.consumers[following])) - 1
                if not open_uses[following]:
                    del open_uses[following]
                    parts[-1].parameters.append(parameter_of[following])
            elif following in created:
                open_edges.setdefault(following, set()).add(output)
    return parts


def _checkpointed(node: Node) -> Any:
    """The block that a node belongs to, by the hook that runs it again; ``None`` for most."""
    hook = held_elsewhere(node)
    return hook if getattr(hook, "__module__", None) == "torch.utils.checkpoint" else None


def is_nested_int(length: object) -> bool:
    """Whether a length stands for as many different ones as a nested tensor has pieces."""
    return isinstance(length, torch.SymInt) and length.node.is_nested_int()


def in_one_piece(graph: Survey) -> Segment:
    """The graph in one piece."""
    return Segment(None, set(graph.leads_to), list(graph.leaves))


def _joined(pieces: Sequence[Segment]) -> Segment:
    nodes = set().union(*(piece.nodes for piece in pieces))
    return Segment(pieces[-1].end, nodes, [parameter for piece in pieces for parameter in piece.parameters])


def _ends(before: Segment | None, piece: Segment) -> int:
    """Numbers in the gradient at the ends: what arrives at the lower one takes the place of the upper one's."""
    ends = [each.end for each in (before, piece) if each is not None and each.end is not None]
    return max((size_of(end) for end in ends), default=0)


def size_of(edge: Edge) -> int:
    """How many numbers arrive at an edge; of a nested tensor, in a row of it, as nothing tells how many there are."""
    node, output = edge
    lengths = node._input_metadata[output].shape
    return math.prod(int(length) for length in lengths if not is_nested_int(length))
