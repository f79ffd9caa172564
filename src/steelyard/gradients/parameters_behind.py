"""Which parameters lie behind features: all of them, or those of the last layers, found by a walk of the graph.

The Gramian of one layer's gradients has the products between all samples, which the features' own lacks, at a small
part of the trunk's price; and the walk finds the layer, so that nobody has to name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from steelyard.errors import SharedError
from steelyard.gradients.differentiation import refused_reentrant
from steelyard.gradients.graph import COMPILED, REENTRANT, Edge, Node, nodes_below

_LAYERS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Addmv", "Mv", "Convolution", "Linear", "Embedding")
"""What multiplies by a weight, or looks it up, as the names of its nodes begin."""
_WEIGHT_OF = {"AddmmBackward0": 2, "MmBackward0": 1, "ConvolutionBackward0": 1}
"""Which of a node's inputs is the weight, where that is known; it may be computed from parameters."""
_ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Cat", "Stack", "Where", "Expand", "CopySlices", "Prelu"),
    *("NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm", "CudnnBatchNorm", "MiopenBatchNorm", "FusedRmsNorm"),
)
"""What scales, shifts or puts beside the stream, and hands it on: norms, learned positions, class tokens."""
_LARGEST_WEIGHT = 32
"""Nodes between a layer and the parameters that its weight is computed from."""


def parameters_behind(edges: Sequence[Edge]) -> tuple[nn.Parameter, ...]:
    """Every parameter that the features depend on."""
    return _parameters(nodes_below(node for node, _ in edges))


def last_layers(edges: Sequence[Edge], among: Iterable[Tensor] | None = None) -> tuple[nn.Parameter, ...]:
    """The parameters of the last layers in front of each edge.

    Last is a layer that no other stands in front of: behind a residual block its last layer, not what the stream went
    round; where branches meet, one in each. Norms, positions and scales are passed; where there is nothing else, they
    are it.

    Args:
        edges: where features come out.
        among: parameters that count; all where not given.

    Raises:
        SharedError: what comes before the features is a closed function, in which no layer shows.
    """
    counted = None if among is None else {id(parameter) for parameter in among}
    found: dict[int, nn.Parameter] = {}
    for edge in edges:
        layers, others = _in_front(edge, counted)
        chosen = layers or others
        beneath = _beneath(chosen) if len(chosen) > 1 else set()
        for node, own in chosen.items():
            if node not in beneath:
                found.update((id(parameter), parameter) for parameter in own)
    return tuple(found.values())


_Found = dict[Node, tuple[nn.Parameter, ...]]


def _in_front(edge: Edge, counted: set[int] | None) -> tuple[_Found, _Found]:
    """The layers that the stream meets first, and what it passes on the way, with their parameters."""
    layers: _Found = {}
    others: _Found = {}
    stack, seen = [edge[0]], {edge[0]}
    while stack:
        node = stack.pop()
        if getattr(node, "variable", None) is not None:
            continue
        if node.name() == COMPILED:
            raise _refused_compiled()
        if node.name() == REENTRANT:
            raise refused_reentrant()
        own, streams = _inputs(node)
        own = tuple(each for each in own if counted is None or id(each) in counted)
        if own and _is_layer(node, own):
            layers[node] = own
            continue
        if own:
            others[node] = own
        for following in streams:
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return layers, others


def _is_layer(node: Node, own: Sequence[Tensor]) -> bool:
    """Whether what it does to the stream is more than to scale or shift it."""
    name = node.name()
    if name.startswith(_LAYERS):
        return True
    return not name.startswith(_ELEMENTWISE) and any(each.dim() > 1 for each in own)


def _inputs(node: Node) -> tuple[tuple[nn.Parameter, ...], list[Node]]:
    """The parameters that enter a node, themselves or through what is computed from them alone, and the other nodes."""
    own: list[nn.Parameter] = []
    streams: list[Node] = []
    for position, (following, _) in enumerate(node.next_functions):
        if following is None:
            continue
        known = _WEIGHT_OF.get(node.name()) == position
        weight = _weight(following, known)
        if weight:
            own.extend(weight)
        else:
            streams.append(following)
    return tuple(own), streams


def _weight(node: Node, known: bool) -> tuple[nn.Parameter, ...]:
    """The parameters that a weight is computed from; none where data come in, or more than a weight does.

    Data enter a graph at an edge to nothing, or as a leaf that is no parameter, and constants at the former: where an
    input is known to be the weight, they are those.
    """
    below: list[Node] = []
    for each in nodes_below([node]):
        below.append(each)
        if len(below) > _LARGEST_WEIGHT:
            return ()
        if known:
            continue
        leaf = getattr(each, "variable", None)
        data = leaf is not None and not isinstance(leaf, nn.Parameter)  # an input that requires a gradient
        if data or any(following is None for following, _ in each.next_functions):
            return ()
    return _parameters(below)


def _parameters(nodes: Iterable[Node]) -> tuple[nn.Parameter, ...]:
    variables = (getattr(node, "variable", None) for node in nodes)
    return tuple({id(each): each for each in variables if isinstance(each, nn.Parameter)}.values())


def _beneath(layers: _Found) -> set[Node]:
    """What the inputs of these layers are made of."""
    return set(nodes_below(stream for node in layers for stream in _inputs(node)[1]))


def _refused_compiled() -> SharedError:
    return SharedError(
        "look='last': the last layer is inside a function that torch.compile made, whose layers the graph does not "
        "show: compile the trunk without its last layer, name that layer, look=trunk.last (which goes through all of "
        "the compiled function for each task), or use look='features'"
    )
