"""What arrives where gradients are replaced: the balanced direction, and what else was sent there.

Scalars of several balancers may be part of one backward pass, beside each other or one within another's losses; what
each wants and sends at one place is exchanged at once.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.graph import get_gradient_edge

from steelyard.gradients.graph import Edge, nodes_below, replacing
from steelyard.gradients.heads import Factors
from steelyard.gradients.rows import Rows
from steelyard.gradients.short_products import TF32_EPS, convolution_is_short, matmul_is_short

Target = Tensor | Edge
"""Where a gradient can be replaced: a tensor, or the edge of a graph node."""
InGraph = Callable[[Tensor], list[tuple[Tensor, Tensor]]]
"""From the incoming gradient to what is wanted and what is sent at each target."""


class Redirection:
    """What must arrive at the features, next to what the losses' plain backward will send there.

    Attributes:
        direction: ``Σ w_k d_k`` (or an element-wise direction), one tensor per feature tensor.
        sent: ``Σ c_k d_k``, what the carrier's backward sends through the heads; ``None``: nothing but that arrives.
        rounding: how far the gradient that arrives can miss ``sent`` through rounding.
        in_graph: what the incoming gradient makes of ``direction`` and ``sent``, as functions of the network, for a
            backward pass that is differentiated in turn (``create_graph=True``); or it raises.
    """

    def __init__(
        self,
        direction: tuple[Tensor, ...],
        sent: tuple[Tensor, ...] | None,
        rounding: Rounding | None = None,
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
            node, output = edge_at(target)
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
        rounding = self.rounding.of(incoming)
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


class Rounding(NamedTuple):
    """How far what arrives may be off what was expected, for an incoming gradient of 1.

    Attributes:
        scaled: where the incoming gradient is no power of two, and products are rounded anew.
        same: where it is one, and they are the very products of the look.
    """

    scaled: Tensor
    same: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Rounding:
        """The same numbers elsewhere; one bound stays one."""
        same = self.same.to(device, dtype)
        return Rounding(same if self.scaled is self.same else self.scaled.to(device, dtype), same)

    def of(self, incoming: Tensor) -> Tensor:
        """The bound for an incoming gradient."""
        if self.scaled is self.same:
            return incoming.abs() * self.same
        size = incoming.abs()
        exact = torch.frexp(size).mantissa == 0.5
        return size * torch.where(exact, self.same, self.scaled)


def rounding_of(dtype: torch.dtype, multipliers: Tensor, squared_norms: Tensor, rows: Rows | Factors) -> Rounding:
    """How far ``Σ c_k d_k`` may be off when it arrives, where the coarsest numbers on the way are of some dtype.

    Devices that multiply float32 numbers of fewer digits multiply those of a look alike: in convolutions, none of which
    is ours, the difference shows once what comes in is scaled.
    """
    device = multipliers.device if not rows.tensors else rows.tensors[0].device
    eps = torch.finfo(dtype).eps
    half = dtype in (torch.float16, torch.bfloat16)
    short = dtype == torch.float32 and matmul_is_short(device)
    same = rounding_bound(TF32_EPS if short else eps, half or short, multipliers, squared_norms, rows)
    if short or dtype != torch.float32 or not convolution_is_short(device):
        return Rounding(same, same)
    return Rounding(rounding_bound(TF32_EPS, True, multipliers, squared_norms, rows), same)


def rounding_bound(eps: float, few: bool, multipliers: Tensor, squared_norms: Tensor, rows: Rows | Factors) -> Tensor:
    """How far ``Σ c_k d_k`` may be off when it arrives, computed in some precision.

    ``n·eps·Σ |c_k| ‖d_k‖`` for the roundings of the heads' backward, ``few`` where a half-precision tensor rounds
    float32 sums, more in float32 where the sums themselves round; and ``½ eps Σ_k ‖s_k‖`` for those of adding the
    heads' shares one by one, whose partial sums are ``s_k``. Of many nearly equal gradients in half precision that is
    most of it.
    """
    sizes = multipliers.abs() * squared_norms.sqrt()
    bound = (4 if few else 32) * sizes.sum()
    if len(sizes) > 2:
        # Partial sums are no longer than all shares end to end; that alone would take a whole foreign gradient for
        # rounding where many shares in half precision point everywhere.
        longest = sizes.cumsum(0)
        if few and len(sizes) > _FEW:
            longest = torch.minimum(longest, _partial_sums(multipliers, rows.gramian()))
        bound = bound + 0.5 * longest[1:].sum()
    return eps * bound


_FEW = 8
"""Shares whose order and angles make no difference to the bound that matters."""


def _partial_sums(multipliers: Tensor, gramian: Tensor) -> Tensor:
    """``‖Σ_{j≤k} c_j d_j‖ [T]``, the larger of first to last and last to first, as heads run and as backward goes."""
    products = gramian * multipliers[:, None] * multipliers
    lengths = [each.cumsum(0).cumsum(1).diagonal().clamp(min=0).sqrt() for each in (products, products.flip(0, 1))]
    return torch.maximum(*lengths)


def edge_at(target: Target) -> Edge:
    """Where the gradient of a target arrives."""
    if isinstance(target, Tensor):
        with torch.enable_grad():  # torch 2.4.0 finds that of a leaf nowhere else
            found = get_gradient_edge(target)
        return found.node, found.output_nr
    return target
