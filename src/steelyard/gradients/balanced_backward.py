"""One scalar whose ordinary backward is the balanced update.

`carry` sends ``incoming · c_k`` to each loss, so head gradients are scaled by ``c_k`` whatever the balanced
direction is. Where the trunk must receive something else than ``Σ c_k d_k`` (plain heads, element-wise methods),
a `Redirection` replaces what arrives at the features. Written as a sum, ``Σ L_k + ⟨Σ (w_k - 1) d_k, z⟩`` would do the
same on paper, and cancel in float32 once gradient norms differ by a few powers of ten; here no difference of large
gradients is ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from steelyard.base.float64 import has_float64, widest
from steelyard.base.looks import grad
from steelyard.errors import LossError
from steelyard.gradients.differentiation import differentiate, watched
from steelyard.gradients.graph import Edge, Node, depends, is_freed, is_running, nodes_below, replacing
from steelyard.gradients.redirection import Redirection, Target, edge_at
from steelyard.gradients.retained import left_as_it_was, retaining, retaining_below

_TRANSPOSED = ("TBackward", "TransposeBackward", "PermuteBackward")
_COPIES = ("ToCopyBackward", "ViewBackward", "UnsafeViewBackward", "ExpandBackward")  # of a parameter, as itself
# Layers whose derivative by the inputs shows without the inputs (weights are transposed, or it has a name), or reads no
# parameter (biases).
_TOLD = (*_TRANSPOSED, *_COPIES, "Addmm", "Add", "Sub", "Convolution", "Embedding")


class _Carry(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, plan: _InputGradients, *tensors: Tensor) -> Tensor:
        ctx.plan = plan
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        if torch.compiler.is_compiling():
            # Compiled autograd records backward passes. This part of one leaves a note that is read where the gradient
            # arrives, and runs as it is; so does all that `torch.compiler.disable` would cover, hence not as a mark.
            return (None, None, *torch.compiler.disable(ctx.plan.gradients)(incoming))  # type: ignore[no-untyped-call]
        if ctx.plan.has_run:
            _check_not_used_up(ctx.next_functions)
        ctx.plan.has_run = True
        return (None, None, *ctx.plan.gradients(incoming))


def _check_not_used_up(inputs: Sequence[tuple[Node | None, int]]) -> None:
    """A further backward pass of one result: own words where it would end in torch's, which know of no balancer."""
    if any(is_freed(node, is_running) for node, _ in inputs if node is not None):
        raise LossError(
            "backward() has been called on this result of a balancer already, and the graph of its losses is gone: "
            "compute the losses anew and call the balancer again, once for each step. Where two backward passes "
            "before one optimizer.step() are meant, give the first retain_graph=True"
        )


class _InputGradients:
    """Which gradient each input of the scalar receives."""

    def __init__(
        self,
        multipliers: Tensor,
        dtypes: Sequence[torch.dtype],
        untouched: int,
        extra: Sequence[Tensor],
        zeros: Sequence[Tensor],
        redirection: Redirection | None,
    ) -> None:
        self.multipliers, self.dtypes, self.untouched = multipliers, dtypes, untouched
        self.extra, self.zeros, self.redirection = extra, zeros, redirection
        self.uniform = dtypes[0] if len(set(dtypes)) == 1 else None
        self.begun: list[Callable[[], None]] = []
        self.has_run = False

    def gradients(self, incoming: Tensor) -> list[Tensor | None]:
        for act in self.begun:
            act()
        scaled = self.multipliers * incoming
        if self.uniform is not None:
            scaled = scaled.to(self.uniform)
        gradients: list[Tensor | None] = [
            piece.to(dtype) for piece, dtype in zip(scaled.unbind(), self.dtypes, strict=True)
        ]
        gradients.extend([None] * self.untouched)
        if self.redirection is not None:
            self.redirection.begin(incoming)
        gradients.extend(piece * incoming.to(piece) for piece in self.extra)
        gradients.extend(zero.clone() for zero in self.zeros)  # what is handed out may become somebody's `.grad`
        return gradients


def carry(
    value: Tensor,
    losses: Sequence[Tensor],
    multipliers: Tensor,
    parameters: Sequence[tuple[Tensor, Tensor]] = (),
    redirection: Redirection | None = None,
    *,
    untouched: Sequence[Tensor] = (),
    zeros: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """A scalar with value ``value`` whose backward sends ``incoming · multipliers[k]`` to each loss.

    Args:
        value: scalar, detached, on the losses' device; decides the dtype of the result.
        losses: those that take part. A loss that does not is no input: see `zero_gradients.py`.
        multipliers: one per loss.
        parameters: pairs of a parameter (a weight learnt by an outside optimizer) and its gradient.
        redirection: replaces what arrives at the features.
        untouched: losses whose graph is walked without a number.
        zeros: pairs of a parameter and a zero gradient, which arrives as it is.
    """
    device = value.device
    plan = _InputGradients(
        multipliers.to(device, None if has_float64(device) else torch.float32),
        [loss.dtype for loss in losses],
        len(untouched),
        [gradient.to(parameter) for parameter, gradient in parameters],
        [zero for _, zero in zeros],
        redirection,
    )
    inputs = [*losses, *untouched, *(parameter for parameter, _ in (*parameters, *zeros))]
    if not inputs:  # nothing moves, and yet there is a graph for `backward`
        inputs, plan.untouched = [torch.zeros_like(value, requires_grad=True)], 1
    with torch.enable_grad():
        result: Tensor = _Carry.apply(value, plan, *inputs)  # type: ignore[no-untyped-call]
    return result


def on_backward(result: Tensor, act: Callable[[], None]) -> None:
    """Act whenever the backward of a scalar that `carry` made begins; without a hook, which costs and may be traced."""
    assert result.grad_fn is not None
    result.grad_fn.plan.begun.append(act)  # type: ignore[attr-defined]


def replaces_below(loss: Tensor, targets: Sequence[Target]) -> bool:
    """Whether a loss comes through a scalar that replaces gradients further down than at some of ``targets``.

    Cost: a walk of the graph, about a microsecond a node.
    """
    replaced = [each for redirection in replacing(nodes_below([loss.grad_fn])) for each in redirection.targets]
    nodes = [edge_at(each)[0] for each in replaced]
    edges = [node for node, each in zip(nodes, replaced, strict=True) if not isinstance(each, Tensor)]
    # An edge's turn comes after that of the tensor that its node made.
    return bool(replaced) and any(
        depends(edge_at(target)[0], nodes) or (isinstance(target, Tensor) and edge_at(target)[0] in edges)
        for target in targets
    )


def goes_past(loss: Tensor, targets: Sequence[Target]) -> bool:
    """Whether a loss reads what lies in front of ``targets`` by another way too: an activation further in front, or a
    derivative by the inputs. (A parameter that a head shares with the trunk is the head's there.)

    Cost: a walk of the graph, about a microsecond a node.
    """
    ends = [edge_at(target)[0] for target in targets]
    outside = set(nodes_below([loss.grad_fn], ends))
    front = list(nodes_below(following for end in ends for following, _ in end.next_functions))
    return any(node in outside and _interior(node) for node in front) or _differentiated(
        {*ends, *front}, outside, set(ends)
    )


def _interior(node: Node) -> bool:
    """Whether an operation has parameters below it, and is no view or cast of one: a layer's transposed weight is the
    layer's own, and only its derivative reads it again."""
    below = [each for each in nodes_below([node]) if each is not node]
    own = len(below) > 1 or (bool(below) and node.name().startswith(_TRANSPOSED))
    return own and any(isinstance(getattr(each, "variable", None), nn.Parameter) for each in below)


def _differentiated(front: set[Node], outside: set[Node], ends: set[Node]) -> bool:
    """Whether a derivative by the inputs reads parameters of the layers in front where these are leaves themselves.

    Such a parameter may be one that a head shares. Second derivatives go by names of their own; where they are sums of
    ordinary operations, inputs that require grad tell, and what the parameter is multiplied by.
    """
    leaves = {node for node in front & outside if isinstance(getattr(node, "variable", None), nn.Parameter)}
    if not leaves:
        return False
    leaves |= {node for node in front | outside if node.name().startswith(_COPIES) and _reads(node, leaves)}
    if any(_is_second(node) for node in outside if _reads(node, leaves)):
        return True
    inputs = [each for node in front if (each := getattr(node, "variable", None)) is not None]
    if all(isinstance(each, nn.Parameter) for each in inputs):
        return False
    if not any(_reads(node, leaves) and not node.name().startswith(_TOLD) for node in front):
        return False
    leaves |= {node for node in outside if node.name().startswith(_TRANSPOSED) and _reads(node, leaves)}
    return any(_multiplies_slope(node, leaves, outside, ends) for node in outside - leaves if _reads(node, leaves))


def _is_second(node: Node) -> bool:
    return node.name().rstrip("0123456789").endswith("BackwardBackward")  # type: ignore[no-any-return]


def _multiplies_slope(reader: Node, leaves: set[Node], outside: set[Node], ends: set[Node]) -> bool:
    """Whether what meets a parameter is a derivative of the heads, and not their input or nothing (a penalty).

    A linear head's slope does not depend on the features. In another one's there are second derivatives, or a layer's
    transposed weight that its forward pass has read too.
    """
    met = [each for each, _ in reader.next_functions if each is not None and each not in leaves]
    below = set(nodes_below(met, ends))
    if met and not any(each in ends for each in met) and not any(_reads(node, ends) for node in below):
        return True
    bare = [node for node in below if node.name().startswith(_TRANSPOSED)]
    return any(map(_is_second, below)) or any(sum(_reads(other, {node}) for other in outside) > 1 for node in bare)


def _reads(node: Node, leaves: set[Node]) -> bool:
    return any(following in leaves for following, _ in node.next_functions)


def combined_in_graph(
    losses: Sequence[Tensor], targets: Sequence[Target], weights: Tensor, multipliers: Tensor, incoming: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """``Σ w_k d_k`` and ``Σ c_k d_k`` at each target, times the incoming gradient, to be differentiated again.

    The weights are constants, as they are where the gradient is not replaced: what is exact is the derivative of
    ``Σ w_k ∇L_k`` at the trunk and of ``Σ c_k ∇L_k`` at the heads (gradient penalties, products with the Hessian).

    Cost: two backward passes through the heads.
    """
    places: Any = [target if isinstance(target, Tensor) else GradientEdge(*target) for target in targets]
    # A balancer within these losses replaces what arrives at an edge by a hook, which is left out where the pass ends.
    edges = [target for target in targets if not isinstance(target, Tensor)]
    behind = [GradientEdge(*each) for node, _ in edges for each in node.next_functions if each[0] is not None]

    retained = [*retaining(tuple(targets)), *retaining_below(losses)]

    def combined(by: Tensor) -> tuple[Tensor | None, ...]:
        if not losses:  # those of this rank are left out
            return (None,) * len(places)
        by = by.to(incoming.device, widest(incoming.device))
        seeds = [(each * incoming).to(loss.dtype) for each, loss in zip(by, losses, strict=True)]
        with watched(edges) as received, left_as_it_was(retained):
            found = grad(losses, [*places, *behind], seeds, create_graph=True)
        return tuple(received.get(edge_at(target), each) for target, each in zip(targets, found, strict=False))

    return [
        (zero if wanted is None else wanted, zero if sent is None else sent)
        for wanted, sent in zip(combined(weights), combined(multipliers), strict=True)
        for zero in [incoming.new_zeros(())]
    ]


def arriving_at_depths(
    losses: Sequence[Tensor], multipliers: Tensor, edges: Sequence[Edge], direction: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """What the carrier's backward will bring to each edge where some of them lie behind others.

    To an edge behind another comes what the heads send there, ``Σ c_k d_k``, and through the other what replaced it:
    no combination of the task gradients at the edge. So the backward is rehearsed as far as the edges.

    Args:
        losses: those that receive a gradient; their graph is kept.
        multipliers: one per loss, what the heads receive.
        edges: where the gradient is replaced.
        direction: by what.

    Cost: one backward pass from the losses to the deepest edge.
    """
    rehearsal = Redirection(direction, None)
    scalar = carry(losses[0].new_zeros(()), losses, multipliers, redirection=rehearsal)
    with watched(edges) as received, left_as_it_was(retaining_below(losses)):
        rehearsal.install(edges, losses)
        # Seeded high: what vanishes in float16 here need not do so behind a gradient scaler.
        found = differentiate(scalar, [GradientEdge(*edge) for edge in edges], float16=True, received=received)
    return tuple(
        torch.zeros_like(like) if gradient is None else gradient.to(like.dtype)
        for gradient, like in zip(found, direction, strict=True)
    )
