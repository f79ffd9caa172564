"""A walk of the autograd graph: what lies between the losses and the trunk's parameters.

Only structure is read here: nodes, edges, and which leaves each node leads to. It takes about a microsecond a node.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

Node = Any
"""A node of torch's autograd graph; its Python type differs by operation."""
Edge = tuple[Node, int]
"""A node and the number of its output: where the gradient of that output arrives."""

COMPILED, REENTRANT = "CompiledFunctionBackward", "CheckpointFunctionBackward"
"""Nodes whose inside the graph does not show: what torch.compile made, and reentrant activation checkpointing."""

CARRIER = "_CarryBackward"
"""The node of a balancer's own result, see `balanced_backward.py`."""

_PASSED_ON = ("_DDPSinkBackward", "_TapBackward")
"""Nodes of functions written in Python that hand on what arrives."""

METADATA = hasattr(torch.autograd.graph.Node, "_input_metadata")
"""Whether nodes tell what arrives at them, since torch 2.6."""
TRUNK, _OTHER = 1, 2
_VIEWS = (
    "TBackward",
    "Transpose",
    "Permute",
    "View",
    "UnsafeView",
    "Expand",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "ToCopy",
)
_LOOKUPS = ("EmbeddingBackward", "Index", "Gather")


@dataclass
class Survey:
    """What a walk from the losses found.

    Attributes:
        roots: the losses' nodes.
        leads_to: for every node, whether it leads to trunk parameters (bit 1) and to other parameters (bit 2).
        reached_by: for every node, the losses that lead to it (bit k for loss k).
        consumers: for every node, the nodes that consume its outputs, once per edge.
        leaves: the accumulating node of every trunk parameter that the losses reach.
        boundary: edges at which the trunk ends: what flows in there comes from heads, what flows on stays in the trunk.
        unclear: leaves that are no `nn.Parameter`, and may be weights of heads or not.
        numbers: in all parameters that the losses reach, the trunk's or not.
        private: nodes between the boundary and a single task's head that lead to no parameter of that head.
    """

    roots: list[Node] = field(default_factory=list)
    leads_to: dict[Node, int] = field(default_factory=dict)
    reached_by: dict[Node, int] = field(default_factory=dict)
    consumers: dict[Node, list[Node]] = field(default_factory=dict)
    leaves: dict[Tensor, Node] = field(default_factory=dict)
    boundary: list[Edge] = field(default_factory=list)
    unclear: list[Tensor] = field(default_factory=list)
    numbers: int = 0
    private: set[Node] = field(default_factory=set)

    def in_trunk(self, node: Node) -> bool:
        """Whether a node belongs to the trunk: below it lie trunk parameters and no others."""
        return self.leads_to[node] == TRUNK


def is_compiled(node: Node) -> bool:
    """Whether a node is a whole function that was compiled, by `torch.compile` or `torch.jit.script`."""
    name: str = node.name()
    return name == COMPILED or name.endswith("DifferentiableGraphBackward")


def survey(losses: Iterable[Tensor], trunk: Iterable[Tensor]) -> Survey:
    """Walk from the losses' nodes to the leaves.

    Args:
        losses: scalars; those without a graph are passed over. Several may be outputs of one node (``unbind``).
        trunk: the trunk's parameters.
    """
    ends = [(loss.grad_fn, loss.output_nr) for loss in losses if loss.grad_fn is not None]
    found = Survey([node for node, _ in ends])
    finished, plain = _walk(found, {id(parameter): parameter for parameter in trunk})
    _settle_owners(found, finished, plain)
    _mark_reached(found, finished)
    found.boundary = _boundary(found, ends)
    return found


def _walk(found: Survey, parameters: dict[int, Tensor]) -> tuple[list[Node], list[Node]]:
    """Where each node leads to, and who consumes it.

    Returns:
        All nodes, those below before those above; and the leaves that are no `nn.Parameter`.
    """
    leads_to, consumers = found.leads_to, found.consumers
    finished_order: list[Node] = []
    plain: list[Node] = []
    stack: list[tuple[Node, bool]] = [(root, False) for root in found.roots]
    while stack:
        node, finished = stack.pop()
        if finished:
            finished_order.append(node)
            leads_to[node] = _leaf_kind(node, parameters, found)
            if not leads_to[node] and hasattr(node, "variable"):
                plain.append(node)
            _add_what_follows(leads_to, node)
            continue
        if node in leads_to:
            continue
        leads_to[node] = 0
        stack.append((node, True))
        for following, _ in node.next_functions:
            if following is not None:
                consumers.setdefault(following, []).append(node)
                if following not in leads_to:
                    stack.append((following, False))
    return finished_order, plain


def _add_what_follows(leads_to: dict[Node, int], node: Node) -> None:
    for following, _ in node.next_functions:
        if following is not None:
            leads_to[node] |= leads_to[following]


def _settle_owners(found: Survey, finished: Sequence[Node], plain: Sequence[Node]) -> None:
    """Leaves that are no `nn.Parameter` and belong to heads lead elsewhere than to the trunk; so do all above."""
    owners = {leaf: _owner(found, leaf) for leaf in plain}
    found.unclear = [leaf.variable for leaf, owner in owners.items() if owner == "unclear"]
    if of_heads := [leaf for leaf, owner in owners.items() if owner == "head"]:
        found.leads_to.update(dict.fromkeys(of_heads, _OTHER))
        for node in finished:
            _add_what_follows(found.leads_to, node)


def _mark_reached(found: Survey, finished: Sequence[Node]) -> None:
    """Which losses lead to each node: those above pass on what they have to those below."""
    for position, root in enumerate(found.roots):
        found.reached_by[root] = found.reached_by.get(root, 0) | 1 << position
    for node in reversed(finished):
        for following, _ in node.next_functions:
            if following is not None:
                found.reached_by[following] = found.reached_by.get(following, 0) | found.reached_by[node]


def _boundary(found: Survey, ends: Sequence[Edge]) -> list[Edge]:
    """Where the trunk ends, each edge once, in the order of the walk."""
    edges: dict[Edge, None] = {}
    for node, kind in found.leads_to.items():
        if kind & _OTHER:
            for following, output in node.next_functions:
                if following is not None and found.leads_to[following] == TRUNK:
                    edges[_past_private(found, (following, output))] = None
    for end in ends:  # a loss without a head of its own: the trunk reaches up to it
        if found.leads_to[end[0]] == TRUNK:
            edges[end] = None
    return list(edges)


def _owner(found: Survey, leaf: Node) -> str:
    """Whose a leaf is that is no `nn.Parameter`: an ``"input"`` of the trunk, a ``"head"``'s weight, or ``"unclear"``.

    An input that requires grad (of a physics-informed loss) meets parameters of the trunk first. The weight of a head
    meets what the trunk has made, and goes on to the losses without any parameter of the trunk; where one comes after
    all, it may be a perturbation in the middle of the trunk, or a head whose derivative by the input is in a loss.
    """
    first: set[bool] = set()
    later: set[bool] = set()
    stack, seen = [leaf], {leaf}
    while stack:
        node = stack.pop()
        for consumer in found.consumers.get(node, ()):
            kinds = {
                _is_bare(following)
                for following, _ in consumer.next_functions
                if following is not None and following not in seen and found.leads_to[following] == TRUNK
            }
            (later if found.leads_to[node] else first).update(kinds)
            if consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
    if not first or True in first:
        return "input"
    return "unclear" if True in later else "head"


def _is_bare(node: Node) -> bool:
    """Whether a node is a parameter, a view or cast of one, or rows of a table."""
    while not hasattr(node, "variable"):
        if not node.name().startswith(_VIEWS + _LOOKUPS):
            return False
        node = node.next_functions[0][0]
    return True


def _past_private(found: Survey, edge: Edge) -> Edge:
    """Past what a single task does to the features before its head (a view): the trunk ends where tasks part."""
    node, output = edge
    while found.reached_by[node].bit_count() == 1:
        following = [each for each in node.next_functions if each[0] is not None]
        if len(following) != 1:
            break
        if getattr(following[0][0], "variable", None) is not None and node.name() != "TBackward0":
            break  # a layer of one parameter; a bare transposition is a weight that the head borrows
        found.private.add(node)
        node, output = following[0]
    return node, output


def held_elsewhere(node: Node) -> Any:
    """The hook that brings back what a node saved (checkpointing recomputes it, offloading copies it), or None.

    Checkpointed blocks have one each. Torch that does not show hooks only looks more slowly.
    """
    for name in _saved(type(node)):  # type: ignore[arg-type]
        saved = getattr(node, name)
        for each in saved if isinstance(saved, tuple | list) else (saved,):
            if (hook := getattr(each, "unpack_hook", None)) is not None:
                return hook
    return None


def is_freed(root: Node | None, asked: Callable[[Node], bool] = lambda node: True) -> bool:
    """Whether a backward pass has freed what the graph below a node saved, as far as its first such node tells.

    Args:
        root: the node.
        asked: whether a node counts.
    """
    for node in filter(asked, nodes_below([root])):
        for name in _saved(type(node)):  # type: ignore[arg-type]
            raw = getattr(node, name)
            if name == "_raw_saved_tensors" or getattr(raw, "unpack_hook", raw) is not None:
                continue  # unpacking would recompute a checkpointed block, or bring back what was offloaded
            try:
                getattr(node, name.removeprefix("_raw"))
            except RuntimeError:  # "Trying to backward through the graph a second time"
                return True
            return False
    return False


def is_running(node: Node) -> bool:
    """Within a backward pass: whether it goes through this node, which is no leaf."""
    return bool(node.next_functions) and torch._C._will_engine_execute_node(node)


@cache
def _saved(kind: type[Any]) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))


def depends(node: Node | None, targets: Sequence[Node | None]) -> bool:
    """Whether any of ``targets`` lies below ``node``."""
    wanted = {target for target in targets if target is not None}
    below = [] if node is None else [following for following, _ in node.next_functions]
    return any(each in wanted for each in nodes_below(below))


def replacing(nodes: Iterable[Node]) -> list[Any]:
    """What those of them that are a balancer's result put in the place of gradients further down."""
    carriers = (node for node in nodes if node.name() == CARRIER)
    return [node.plan.redirection for node in carriers if node.plan.redirection is not None]


def nodes_below(roots: Iterable[Node | None], stop: Iterable[Node | None] = ()) -> Iterator[Node]:
    """Every node that the roots lead to, themselves included, without those at ``stop`` and what lies below them."""
    seen = set(stop)
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)


def sparsely_used(roots: Iterable[Node | None]) -> set[Tensor]:
    """The leaves to which an operation below the roots sends a sparse gradient (``nn.Embedding(…, sparse=True)``)."""
    return {
        variable
        for node in nodes_below(roots)
        if getattr(node, "_saved_sparse", False) or getattr(node, "_saved_sparse_grad", False)
        for following, _ in node.next_functions
        if (variable := getattr(following, "variable", None)) is not None
    }


@dataclass(frozen=True)
class Precision:
    """In which precision gradients travel through a part of the graph; under autocast its two ends do not tell.

    Attributes:
        coarsest: the dtype with the largest rounding.
        float16: whether gradients may underflow, and bear to be sent larger than they are.
    """

    coarsest: torch.dtype
    float16: bool


def precision_of(nodes: Iterable[Node], tensors: Iterable[Tensor]) -> Precision:
    """The precision of gradients that arrive at some nodes and tensors."""
    dtypes = {tensor.dtype for tensor in tensors}
    hidden = by_hand = False
    roots = () if METADATA else {tensor.grad_fn for tensor in tensors}
    for node in nodes:
        kind = type(node).__name__
        by_hand = by_hand or (isinstance(node, BackwardCFunction) and _is_loss_by_hand(node, roots))
        if kind in ("AccumulateGrad", "TBackward0"):  # on the way to a parameter: half of all nodes
            continue
        if kind == COMPILED:
            hidden = True  # what is inside does not show; a seed too high costs a little time
        elif METADATA:
            for each in node._input_metadata:
                dtypes.add(each.dtype)
        elif kind == "ToCopyBackward0":  # a cast, to which precision does not show
            dtypes.update((torch.float16, torch.bfloat16))
    dtypes = {dtype.to_real() if dtype.is_complex else dtype for dtype in dtypes}
    coarsest = max((dtype for dtype in dtypes if dtype.is_floating_point), key=lambda dtype: torch.finfo(dtype).eps)
    return Precision(coarsest, not by_hand and (hidden or torch.float16 in dtypes))


def _is_loss_by_hand(node: Node, roots: Container[Node]) -> bool:
    """Whether a node is somebody's own function that makes a loss.

    Some make their gradient in the forward pass, and multiply that very buffer by what arrives unless it is 1: what a
    look sent would stay in it.
    """
    if node.name() in (COMPILED, REENTRANT, CARRIER, *_PASSED_ON):
        return False
    return all(len(each.shape) == 0 for each in node._input_metadata) if METADATA else node in roots


def _leaf_kind(node: Node, parameters: dict[int, Tensor], found: Survey) -> int:
    variable = getattr(node, "variable", None)
    if variable is None:
        return 0
    found.numbers += variable.numel()
    if id(variable) in parameters:
        found.leaves[variable] = node
        return TRUNK
    # What is no `nn.Parameter` may be an input that requires grad, and so nobody's: see `_owner`.
    return _OTHER if isinstance(variable, nn.Parameter) else 0
