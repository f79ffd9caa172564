"""What the tasks' gradients have along a change of the parameters that is not made yet: ``⟨∇L_k, Δ⟩``.

For all tasks that is one product, ``J Δ``, and needs no gradient of any task. A backward pass ``g(v) = Jᵀ v`` is linear
in the numbers ``v`` that it starts from, so ``J Δ`` is the derivative of ``⟨g(v), Δ⟩`` by ``v``. The pass is recorded
while the losses have their graph (`record`), and differentiated once the change is known, when that graph is long gone
and the parameters have moved: what the record needs of these is copied.

Where an operation on the way cannot be differentiated twice, the gradients themselves are kept, task by task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from steelyard.base.float64 import double
from steelyard.base.looks import grad
from steelyard.errors import LossError, SharedError, warn
from steelyard.gradients.differentiation import differentiate, unchecked
from steelyard.gradients.graph import REENTRANT, Precision, Survey, is_compiled, nodes_below, precision_of, survey

_SCALES = (1.0, 2.0**-8, 2.0**-16, 2.0**-24)
"""What a change whose largest number is about one is multiplied by on its way through float16, until none overflows."""
_AGREE = 1e-3
"""How far the tasks' products may miss that of their sum, in lengths of gradient and change, in float32."""


class BackwardRecord(Protocol):
    """What was kept of the losses.

    Attributes:
        by_rows: whether that is the gradients themselves.
    """

    by_rows: bool

    def products(self, changes: Sequence[Tensor]) -> Tensor | None:
        """``⟨∇L_k, Δ⟩ [T]`` float64, for the change of each parameter in order; once.

        ``None`` where the record turns out not to hold the gradients; `record` keeps these from now on if told so.
        """


def record(losses: Sequence[Tensor], parameters: Sequence[Tensor], by_rows: bool = False) -> BackwardRecord:
    """Keep what the products need; the losses' graph is kept for the backward pass to come.

    Args:
        losses: scalars with a graph.
        parameters: those that will change.
        by_rows: whether the gradients themselves are kept.

    Hooks on the parameters do not run.

    Cost: a backward pass, and as much memory as a forward pass takes, with a copy of the parameters; the product later
    costs a backward pass. By rows: a backward pass per task, and ``T x P`` numbers.

    Raises:
        SharedError: the graph cannot be looked through, or reaches none of the parameters.
    """
    found = survey(losses, parameters)
    if any(node.name() == REENTRANT for node in found.leads_to):
        raise SharedError(
            "gradients cannot be read through reentrant activation checkpointing, which hides its parameters from the "
            "graph: call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
    reached = [position for position, parameter in enumerate(parameters) if parameter in found.leaves]
    if not reached:
        raise LossError(
            "no loss depends on a parameter of this optimizer: give the one that moves the network of these losses"
        )
    precision = precision_of(found.leads_to, losses)
    wanted = [parameters[position] for position in reached]
    with _without_hooks(wanted):
        if not by_rows and not any(is_compiled(node) for node in found.leads_to):
            twice = _Twice.of(losses, parameters, reached, found, precision)
            if twice is not None:
                return twice
        rows = [differentiate(loss, wanted, precision.float16) for loss in losses]
    return _ByRows(
        [
            {position: gradient for position, gradient in zip(reached, row, strict=True) if gradient is not None}
            for row in rows
        ]
    )


@contextmanager
def _without_hooks(parameters: Sequence[Tensor]) -> Iterator[None]:
    """A change that hooks had a part in is multiplied by the gradients as they are; and hooks may draw, or count."""
    hooks = [(each._backward_hooks, dict(each._backward_hooks)) for each in parameters if each._backward_hooks]
    for registered, _ in hooks:
        registered.clear()  # the dict itself is known to torch, and to the handles that take a hook off
    try:
        yield
    finally:
        for registered, kept in hooks:
            registered.update(kept)


def products_at_once(losses: Sequence[Tensor], parameters: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``⟨∇L_k, Σ_j w_j ∇L_j⟩ [T]`` float64, ``G w`` at these parameters; the losses' graph is kept.

    Args:
        losses: scalars with a graph.
        parameters: those that the gradients are of.
        weights: ``w [T]``.

    Cost: two backward passes, whatever the number of losses.

    Raises:
        SharedError: an operation on the way cannot be differentiated twice.
    """
    largest = weights.abs().max()
    if not bool(largest > 0):
        return torch.zeros_like(weights)
    seeds = [(each / largest).to(loss).requires_grad_() for each, loss in zip(weights, losses, strict=True)]
    try:
        with torch.enable_grad(), unchecked():
            arrived = grad(losses, parameters, seeds, create_graph=True)
            gradients = [each.to_dense() if each is not None and each.is_sparse else each for each in arrived]
            recorded = [each for each in gradients if each is not None and each.grad_fn is not None]
            if _ends_early(recorded):
                raise _once_only_error()
            unit = _unit(recorded)
            along = [each.detach() * unit for each in recorded]
            found = grad(recorded, seeds, along) if recorded else [None] * len(seeds)
    except RuntimeError as error:
        if not _is_once_only(error):
            raise
        raise _once_only_error() from error
    products = torch.stack(
        [torch.zeros_like(loss) if each is None else each for each, loss in zip(found, losses, strict=True)]
    )
    products = double(products.detach()).to(weights) / unit
    length, inner = _dot(along, along) / unit**2, float((weights / largest) @ products)
    rounding = max(_AGREE, 64 * max(torch.finfo(loss.dtype).eps for loss in losses))
    if abs(length - inner) > rounding * abs(length):
        raise _once_only_error()
    return products * largest


def _unit(gradients: Sequence[Tensor]) -> float:
    """A power of two that brings the largest number to about one: exact."""
    largest = [double(each.detach().abs().amax()).cpu() for each in gradients if each.numel()]
    found = float(torch.stack(largest).max()) if largest else 0.0
    return 2.0 ** -math.floor(math.log2(found)) if 0 < found < math.inf else 1.0


def _once_only_error() -> SharedError:
    return SharedError(
        "an operation of this network cannot be differentiated twice (fused attention, torch.compile), which takes the "
        "place of a second forward pass where none is given: pass again=steelyard.losses_of(model, losses_on, batch) "
        "and call balancer.attach(optimizer); attention can under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
    )


class _Twice:
    """A backward pass that is differentiated in turn."""

    by_rows = False

    def __init__(self, weights: list[Tensor], gradients: dict[int, Tensor], precision: Precision) -> None:
        self._weights, self._gradients, self._precision = weights, gradients, precision

    @classmethod
    def of(
        cls,
        losses: Sequence[Tensor],
        parameters: Sequence[Tensor],
        reached: list[int],
        found: Survey,
        precision: Precision,
    ) -> _Twice | None:
        """``None`` where the graph says beforehand that it cannot be."""
        leaves = [node.variable for node in found.leads_to if hasattr(node, "variable")]
        moving = {leaf.untyped_storage().data_ptr() for leaf in leaves}

        def keep(tensor: Tensor) -> Tensor:
            # Without its graph: the record is differentiated by what it started from, and by nothing else.
            own = tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() in moving
            return tensor.detach().clone() if own else tensor.detach()

        weights = [torch.ones_like(loss).requires_grad_() for loss in losses]
        wanted = [parameters[position] for position in reached]
        with torch.enable_grad(), unchecked(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            arrived = grad(losses, wanted, weights, create_graph=True)
        gradients = {
            position: gradient for position, gradient in zip(reached, arrived, strict=True) if gradient is not None
        }
        if any(gradient.is_sparse or gradient.grad_fn is None for gradient in gradients.values()):
            return None
        return None if _ends_early(gradients.values()) else cls(weights, gradients, precision)

    def products(self, changes: Sequence[Tensor]) -> Tensor | None:
        changes = [changes[position] for position in self._gradients]
        gradients = list(self._gradients.values())
        largest = torch.stack([change.abs().amax().cpu() for change in changes if change.numel()]).max()
        unit = 2.0 ** -float(largest.double().log2().floor())  # a power of two: exact
        for scale in _SCALES if self._precision.float16 else (1.0,):
            along = [
                (change * (unit * scale)).to(gradient.dtype)
                for change, gradient in zip(changes, gradients, strict=True)
            ]
            try:
                with unchecked():
                    found = grad(gradients, self._weights, along, retain_graph=True)
            except RuntimeError as error:
                if not _is_once_only(error):
                    raise
                return None
            products = torch.stack([torch.zeros(()) if each is None else each.cpu() for each in found])
            products = products.double() / (unit * scale)
            if bool(products.isfinite().all()):
                break
        return products if self._agrees(products, gradients, changes) else None

    def _agrees(self, products: Tensor, gradients: Sequence[Tensor], changes: Sequence[Tensor]) -> bool:
        """Whether the products add up to that of the sum of the losses.

        An operation whose backward leaves torch for a while looks as if it could be differentiated twice.
        """
        if self._precision.float16 or not bool(products.isfinite().all()):
            return True  # what the pass itself sent may have vanished or overflown; its record has not
        gradients = [gradient.detach() for gradient in gradients]
        total = _dot(gradients, changes)
        allowed = max(_AGREE, 16 * torch.finfo(self._precision.coarsest).eps)
        allowed *= (_dot(gradients, gradients) * _dot(changes, changes)) ** 0.5
        return bool(abs(total - float(products.sum())) <= allowed)


class _ByRows:
    """The gradients of each task, by the positions of the parameters."""

    by_rows = True

    def __init__(self, rows: list[dict[int, Tensor]]) -> None:
        self._rows = rows

    def products(self, changes: Sequence[Tensor]) -> Tensor | None:
        found = [_dot(row.values(), [changes[position] for position in row]) for row in self._rows]
        return torch.tensor(found, dtype=torch.float64)


def _dot(gradients: Iterable[Tensor], changes: Iterable[Tensor]) -> float:
    """``Re ⟨g, Δ⟩`` over several tensors; waits for the device once."""
    found = [_one_dot(gradient, change) for gradient, change in zip(gradients, changes, strict=True)]
    return float(torch.stack([each.to(found[0].device) for each in found]).sum()) if found else 0.0


def _one_dot(gradient: Tensor, change: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        change, gradient = change[tuple(gradient.indices())], gradient.values()
    precise = torch.promote_types(torch.promote_types(gradient.dtype, change.dtype), torch.float32)
    product = torch.vdot(gradient.to(precise).flatten(), change.to(precise).flatten())
    return double(product.real)


def _ends_early(gradients: Iterable[Tensor]) -> bool:
    """Whether the record of a backward pass has an end that only says that it is one."""
    return any(
        "NotImplemented" in node.name() or "::Error" in node.name()
        for node in nodes_below([gradient.grad_fn for gradient in gradients])
    )


def _is_once_only(error: RuntimeError) -> bool:
    text = str(error)
    return "not implemented" in text or "double backward" in text or "twice" in text


def warn_of_rows(tasks: int) -> None:
    """The dearer way, once."""
    warn(
        "an operation of this network cannot be differentiated twice, so at each measured step the ledger keeps the "
        f"gradients of all {tasks} tasks, in as many backward passes and copies of the parameters. Attention can under "
        "torch.nn.attention.sdpa_kernel(SDPBackend.MATH); or measure fewer steps (every=)"
    )
