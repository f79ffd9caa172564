"""What data-parallel wrappers leave in the graph, so that a look passes by unnoticed.

`DistributedDataParallel` with ``find_unused_parameters``, and before its first backward with ``static_graph``, hands
outputs on through a node of its own, which takes the first gradient that passes for the start of the training
backward. A look before that one would have it average nothing, then and ever after, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from steelyard.errors import SharedError
from steelyard.gradients.graph import Edge, Node, nodes_below

SINK = "_DDPSinkBackward"
_BEGUN = "_static_graph_delay_allreduce_enqueued"


def behind_wrapper(tensor: Tensor) -> Edge | None:
    """The edge behind such a node: what heads inside the wrapper read; ``None`` for any other tensor."""
    node: Node = tensor.grad_fn
    if node is None or node.name() != SINK:
        return None
    # Outputs are its inputs after a first one; edges are kept for tensors alone, without a node where none is needed.
    needed: tuple[bool, ...] = node.needs_input_grad
    edges = [edge for edge in node.next_functions if edge[0] is not None]
    following: Edge = edges[sum(needed[: tensor.output_nr + 1])]
    return following


def edges_of(tensors: Sequence[Tensor]) -> tuple[Edge, ...]:
    """Where the gradients of some features arrive, past such nodes."""
    found = (behind_wrapper(tensor) or get_gradient_edge(tensor) for tensor in tensors)
    return tuple((node, output) for node, output, *_ in found)


@contextmanager
def unnoticed(losses: Sequence[Tensor]) -> Iterator[bool]:
    """Look without being taken for a backward; yields whether there was a wrapper that would have mistaken it.

    Raises:
        SharedError: a wrapper waits for its first backward, and this version of torch does not let us pass by.
    """
    waiting = []
    for wrapper in {id(each): each for each in map(_wrapper, _sinks(losses))}.values():
        if wrapper is None or (wrapper.static_graph and not hasattr(wrapper, _BEGUN)):
            raise SharedError(
                "DistributedDataParallel(static_graph=True) would take a look at the gradients for its first backward, "
                "and never average any: make the first step a plain one, sum(losses.values()).backward(), or leave "
                "out static_graph"
            )
        if wrapper.static_graph and not getattr(wrapper, _BEGUN):
            waiting.append(wrapper)
    for wrapper in waiting:
        setattr(wrapper, _BEGUN, True)
    try:
        yield bool(waiting)
    finally:
        for wrapper in waiting:
            setattr(wrapper, _BEGUN, False)


def _wrapper(sink: Node) -> Any:
    reference = getattr(sink, "ddp_weakref", None)
    return None if reference is None else reference()


def _sinks(losses: Sequence[Tensor]) -> list[Node]:
    return [node for node in nodes_below([loss.grad_fn for loss in losses]) if node.name() == SINK]


def is_sharded(parameter: Tensor) -> bool:
    """Whether it is a distributed tensor, of which this rank holds a piece."""
    return hasattr(parameter, "device_mesh")
