"""One scalar whose ordinary backward is the balanced update.

`carry` sends ``incoming · c_k`` to each loss, so head gradients are scaled by ``c_k`` whatever the balanced
direction is. Where the trunk must receive something else than ``Σ c_k d_k`` (plain heads, element-wise methods),
`redirect` replaces what arrives at the features. Written as a sum, ``Σ L_k + ⟨Σ (w_k - 1) d_k, z⟩`` would do the
same on paper, and cancel in float32 once gradient norms differ by a few powers of ten; here no difference of large
gradients is ever formed.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.autograd.graph import GradientEdge, get_gradient_edge

from steelyard.base.float64 import has_float64, widest
from steelyard.errors import LossError
from steelyard.gradients.differentiation import differentiate, watched
from steelyard.gradients.graph import Edge, Node, depends, is_freed, is_running, nodes_below, replacing
from steelyard.gradients.heads import Factors
from steelyard.gradients.rows import Rows

Target = Tensor | Edge
"""Where a gradient can be replaced: a tensor, or the edge of a graph node."""
InGraph = Callable[[Tensor], list[tuple[Tensor, Tensor]]]
"""From the incoming gradient to what is wanted and what is sent at each target."""
_TRANSPOSED = ("TBackward", "TransposeBackward", "PermuteBackward")
_COPIES = ("ToCopyBackward", "ViewBackward", "UnsafeViewBackward", "ExpandBackward")  # of a parameter, as itself
# Layers whose derivative by the inputs shows without the inputs (weights are transposed, or it has a name), or reads no
# parameter (biases).
_TOLD = (*_TRANSPOSED, *_COPIES, "Addmm", "Add", "Sub", "Convolution", "Embedding")


class Redirection:
    """What must arrive at the features, next to what the losses' plain backward will send there.

    Attributes:
        direction: ``Σ w_k d_k`` (or an element-wise direction), one tensor per feature tensor.
        sent: ``Σ c_k d_k``, what the carrier's backward sends through the heads; ``None``: nothing but that arrives.
        rounding: the largest norm by which the gradient that arrives can miss ``sent`` through rounding.
        in_graph: what the incoming gradient makes of ``direction`` and ``sent``, as functions of the network, for a
            backward pass that is differentiated in turn (``create_graph=True``); or it raises.
    """

    def __init__(
        self,
        direction: tuple[Tensor, ...],
        sent: tuple[Tensor, ...] | None,
        rounding: Tensor | None = None,
        in_graph: InGraph | None = None,
    ) -> None:
        self.direction, self.sent, self.rounding, self.in_graph = direction, sent, rounding, in_graph
        self.scaled: list[tuple[Tensor, Tensor]] | None = None
        # Set by the carrier's backward and consumed once per feature, so that another backward through the same
        # features (a look, a second loss, the next step's after one that failed) passes unchanged.
        self.incoming: list[Tensor | None] = [None] * len(direction)
        self.backward_pass = -1  # in which that was
        self.targets: Sequence[Target] = ()
        # By target, all that replace what arrives there, this one among them.
        self.neighbours: list[list[_Neighbour]] = []
        self.within: list[Redirection] = []  # those of them whose scalar is part of a loss of this one

    def install(self, targets: Sequence[Target], losses: Sequence[Tensor]) -> None:
        """Watch the gradient that arrives at each target.

        The hooks live as long as this object, and that as long as the scalar's graph: a parameter outlives the graph
        of one step, and must not gather the hooks of all.
        """
        self.targets = targets
        this = weakref.ref(self)
        for position, target in enumerate(targets):
            replace = functools.partial(_replace, this, position)
            node, output = _edge(target)
            if isinstance(target, Tensor):
                handle = target.register_hook(replace)  # type: ignore[no-untyped-call]
            else:
                handle = node.register_prehook(functools.partial(_replace_output, output, replace))
            weakref.finalize(self, handle.remove)
            there: list[_Neighbour] = node.metadata.setdefault(f"{__name__}.{output}", [])
            there.append((this, position))
            weakref.finalize(self, there.remove, (this, position))
            self.neighbours.append(there)
        if self.sent is not None and any(len(there) > 1 for there in self.neighbours):
            self.within = replacing(nodes_below(loss.grad_fn for loss in losses))

    def begin(self, incoming: Tensor) -> None:
        """The carrier's backward has started."""
        if torch.is_grad_enabled() and self.in_graph is not None:
            self.scaled = self.in_graph(incoming)  # passes the targets itself: before they wait for anything
        self.incoming = [incoming] * len(self.incoming)
        self.backward_pass = _this_pass()
        # A backward that never reaches the features must leave nothing for the next one.
        Variable._execution_engine.queue_callback(self.forget)

    def forget(self) -> None:
        """The backward that carried the incoming gradient has ended."""
        self.incoming, self.scaled = [None] * len(self.incoming), None

    def replace(self, position: int, gradient: Tensor | None) -> Tensor | None:
        if self.backward_pass != _this_pass():
            return gradient
        incoming = self.incoming[position]
        if incoming is None or gradient is None:
            self.incoming[position] = None
            return gradient
        if self.sent is None:
            self.incoming[position] = None
            return (incoming.to(self.direction[position].dtype) * self.direction[position]).to(gradient.dtype)
        exchange = self._with_neighbours(position)
        if gradient.is_sparse:
            # A table whose optimizer takes sparse gradients: any of its rows may be in the direction.
            return _exchanged(exchange, gradient.to_dense()).to_sparse(gradient.sparse_dim())
        return _exchanged(exchange, gradient)

    def _with_neighbours(self, position: int) -> Exchange:
        """What every balancer whose scalar sends something here in this backward exchanges, at once.

        One after another, the first would take for rounding what the second, far below it, has sent, and the second
        take away what is no longer there. Of two of which one balances the other's result, the outer one has counted
        what the inner one wants among what the heads send.
        """
        there = [(this(), place) for this, place in tuple(self.neighbours[position])]  # some may end meanwhile
        active = [(each, place) for each, place in there if each is not None and each._takes_part(place)]
        if len(active) == 1:
            return self._exchange(position)
        inside = {each for outer, _ in active for each in outer.within}
        found = [(each in inside, each._exchange(place)) for each, place in active]
        total = functools.partial(functools.reduce, torch.add)
        return Exchange(
            total([each.wanted for is_inside, each in found if not is_inside]),
            total([each.expected - each.wanted if is_inside else each.expected for is_inside, each in found]),
            total([each.rounding for _, each in found]),
        )

    def _takes_part(self, position: int) -> bool:
        """Whether its scalar is part of this backward, and what arrives is not replaced whatever it is."""
        return self.backward_pass == _this_pass() and self.incoming[position] is not None and self.sent is not None

    def _exchange(self, position: int) -> Exchange:
        """Once in a backward."""
        incoming, self.incoming[position] = self.incoming[position], None
        assert incoming is not None
        assert self.sent is not None
        assert self.rounding is not None
        direction = self.direction[position]
        incoming = incoming.to(direction.dtype)
        rounding = incoming.abs() * self.rounding
        if self.scaled is None:
            return Exchange(incoming * direction, incoming * self.sent[position], rounding)
        wanted, expected = (each.to(direction.dtype) for each in self.scaled[position])
        return Exchange(wanted, expected, rounding)


class Exchange(NamedTuple):
    """What is wanted, what the balanced losses will have sent in its place, and how far rounding may take that."""

    wanted: Tensor
    expected: Tensor
    rounding: Tensor


_Neighbour = tuple["weakref.ref[Redirection]", int]
"""A redirection, and which of its targets."""


def _exchanged(exchange: Exchange, gradient: Tensor) -> Tensor:
    wanted, expected, rounding = exchange
    # Whatever the user sends through the same features besides the balanced losses is kept; what is no larger than
    # the rounding of what was expected is not theirs.
    rest = gradient.to(wanted.dtype) - expected
    foreign = torch.linalg.vector_norm(rest) > rounding
    # NaN and inf compare false with everything: pass them on, for a gradient scaler to see.
    foreign = foreign | ~torch.isfinite(rest).all()
    arriving = wanted + torch.where(foreign, rest, torch.zeros_like(rest))
    return arriving.to(gradient.dtype)


def _this_pass() -> int:
    """The number of the backward pass that this thread is in, as torch counts them; −1 outside."""
    number: int = torch._C._current_graph_task_id()
    return number


def _replace(this: weakref.ref[Redirection], position: int, gradient: Tensor | None) -> Tensor | None:
    redirection = this()
    return gradient if redirection is None else redirection.replace(position, gradient)


def _replace_output(
    output: int, replace: Callable[[Tensor | None], Tensor | None], gradients: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    return (*gradients[:output], replace(gradients[output]), *gradients[output + 1 :])


def rounding_bound(dtype: torch.dtype, multipliers: Tensor, squared_norms: Tensor, rows: Rows | Factors) -> Tensor:
    """How far ``Σ c_k d_k`` may be off when it arrives, computed in some precision.

    ``n·eps·Σ |c_k| ‖d_k‖`` for the roundings of the heads' backward, few where a half-precision tensor rounds float32
    sums, more in float32 where the sums themselves round; and ``½ eps Σ_k ‖s_k‖`` for those of adding the heads' shares
    one by one, whose partial sums are ``s_k``. Of many nearly equal gradients in half precision that is most of it.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    sizes = multipliers.abs() * squared_norms.sqrt()
    bound = (4 if half else 32) * sizes.sum()
    if len(sizes) > 2:
        # Partial sums are no longer than all shares end to end; that alone would take a whole foreign gradient for
        # rounding where many shares in half precision point everywhere.
        longest = sizes.cumsum(0)
        if half and len(sizes) > _FEW:
            longest = torch.minimum(longest, _partial_sums(multipliers, rows.gramian()))
        bound = bound + 0.5 * longest[1:].sum()
    return torch.finfo(dtype).eps * bound


_FEW = 8
"""Shares whose order and angles make no difference to the bound that matters."""


def _partial_sums(multipliers: Tensor, gramian: Tensor) -> Tensor:
    """``‖Σ_{j≤k} c_j d_j‖ [T]``, the larger of first to last and last to first, as heads run and as backward goes."""
    products = gramian * multipliers[:, None] * multipliers
    lengths = [each.cumsum(0).cumsum(1).diagonal().clamp(min=0).sqrt() for each in (products, products.flip(0, 1))]
    return torch.maximum(*lengths)


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
        self.begun: Callable[[], None] | None = None
        self.has_run = False

    def gradients(self, incoming: Tensor) -> list[Tensor | None]:
        if self.begun is not None:
            self.begun()
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
    result.grad_fn.plan.begun = act  # type: ignore[attr-defined]


def replaces_below(loss: Tensor, targets: Sequence[Target]) -> bool:
    """Whether a loss comes through a scalar that replaces gradients further down than at some of ``targets``.

    Cost: a walk of the graph, about a microsecond a node.
    """
    replaced = [each for redirection in replacing(nodes_below([loss.grad_fn])) for each in redirection.targets]
    nodes = [_edge(each)[0] for each in replaced]
    edges = [node for node, each in zip(nodes, replaced, strict=True) if not isinstance(each, Tensor)]
    # An edge's turn comes after that of the tensor that its node made.
    return bool(replaced) and any(
        depends(_edge(target)[0], nodes) or (isinstance(target, Tensor) and _edge(target)[0] in edges)
        for target in targets
    )


def goes_past(loss: Tensor, targets: Sequence[Target]) -> bool:
    """Whether a loss reads what lies in front of ``targets`` by another way too: an activation further in front, or a
    derivative by the inputs. (A parameter that a head shares with the trunk is the head's there.)

    Cost: a walk of the graph, about a microsecond a node.
    """
    ends = [_edge(target)[0] for target in targets]
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


def _edge(target: Target) -> Edge:
    if isinstance(target, Tensor):
        with torch.enable_grad():  # torch 2.4.0 finds that of a leaf nowhere else
            found = get_gradient_edge(target)
        return found.node, found.output_nr
    return target


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

    def combined(by: Tensor) -> tuple[Tensor | None, ...]:
        if not losses:  # those of this rank are left out
            return (None,) * len(places)
        by = by.to(incoming.device, widest(incoming.device))
        seeds = [(each * incoming).to(loss.dtype) for each, loss in zip(by, losses, strict=True)]
        with watched(edges) as received:
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                losses, [*places, *behind], seeds, create_graph=True, allow_unused=True
            )
        return tuple(received.get(_edge(target), each) for target, each in zip(targets, found, strict=False))

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
    with watched(edges) as received:
        rehearsal.install(edges, losses)
        # Seeded high: what vanishes in float16 here need not do so behind a gradient scaler.
        found = differentiate(scalar, [GradientEdge(*edge) for edge in edges], float16=True, received=received)
    return tuple(
        torch.zeros_like(like) if gradient is None else gradient.to(like.dtype)
        for gradient, like in zip(found, direction, strict=True)
    )
