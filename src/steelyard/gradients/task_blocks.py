"""The Gramian of few layers without all tasks' gradients at once.

What arrives at a layer is ``T`` times its output. The backward pass to come allocates the gradients of all parameters,
which are not there yet while one looks: as much may be held for free. Where ``T`` outputs are more, a block of tasks is
held, and the later ones pass by it, some at a time; they are walked once for each block before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steelyard.base.float64 import double, float64_device
from steelyard.gradients.graph import Edge
from steelyard.gradients.layers import Formula, Match
from steelyard.gradients.layers.products import AT_A_TIME, cancels, kernel_of
from steelyard.gradients.row_products import inner_products, is_safe

_SHARE, _WHOLE = 0.72, 0.86
"""Of what the backward pass will allocate for gradients: for a block, and for all tasks, by which no others pass. The
rest is for products and for the walk itself."""

_LinearLayer = tuple[Formula, Match, Edge]
Arrivals = Callable[[range], dict[Edge, Tensor]]
"""What arrives at the layers' edges from some of the tasks, ``[those tasks, …]``."""


def block_size(tasks: int, per_task: int, parameters: int) -> int:
    """How many tasks are held at once; all of them where there is room."""
    if tasks * per_task <= _WHOLE * parameters:
        return tasks
    return min(tasks, max(int(_SHARE * parameters / max(per_task, 1)), AT_A_TIME))


def gramian_in_blocks(layers: Sequence[_LinearLayer], arrivals: Arrivals, tasks: int, block: int) -> Tensor | None:
    """``[T, T]`` float64; ``None`` where float32 would not hold it, or a task does not reach a layer.

    Args:
        layers: with formulas of linear layers, each used once, and where its gradients arrive.
        arrivals: walks tasks.
        tasks: their number.
        block: tasks that are held at once.
    """
    total = torch.zeros(tasks, tasks, dtype=torch.float64)
    kernels: list[Tensor] = []
    for start in range(0, tasks, block):
        if not _one_block(layers, arrivals, total, slice(start, min(start + block, tasks)), kernels):
            return None
    total = (total.triu() + total.triu(1).T).to(float64_device(kernels[0].device))
    return total if is_safe(total.diagonal()) else None


def _one_block(
    layers: Sequence[_LinearLayer], arrivals: Arrivals, total: Tensor, mine: slice, kernels: list[Tensor]
) -> bool:
    """The products of a block of tasks with each other and with all later ones; False as `gramian_in_blocks` has it."""
    held = _laid_out(layers, arrivals(range(mine.start, mine.stop)), kernels)
    if held is None or not all(_lift(K, D, total[mine, mine]) for K, D in zip(kernels, held, strict=True)):
        return False
    for first in range(mine.stop, len(total), AT_A_TIME):
        later = slice(first, min(first + AT_A_TIME, len(total)))
        passing = _laid_out(layers, arrivals(range(later.start, later.stop)), kernels)
        if passing is None:
            return False
        while passing:  # none of them outlives its product
            total[mine, later] += inner_products(held[-len(passing)].flatten(1), passing.pop(0).flatten(1)).to(total)
    return True


def _laid_out(
    layers: Sequence[_LinearLayer], arrived: dict[Edge, Tensor], kernels: list[Tensor]
) -> list[Tensor] | None:
    """The tasks' output gradients ``[those, N, out]`` of each layer; its ``AAᵀ`` is added to the kernels once."""
    found = []
    for place, (formula, use, edge) in enumerate(layers):
        if edge not in arrived or formula.as_linear is None:
            return None
        A, D = formula.as_linear([use], [arrived[edge]])
        precise = torch.promote_types(torch.promote_types(A.dtype, D.dtype), torch.float32)
        if place == len(kernels):
            kernels.append(kernel_of(A.to(precise), bias=len(use.leaves) > 1))
        found.append(D.to(precise))
    return found


def _lift(K: Tensor, D: Tensor, total: Tensor) -> bool:
    """Add a block's own products to its part of the Gramian, and make ``K D`` of ``D``, in place.

    False where float32 loses too much in them.
    """
    for first in range(0, len(D), AT_A_TIME):
        some = D[first : first + AT_A_TIME]
        product = torch.matmul(K, some)
        own = product.flatten(1) @ D[first:].flatten(1).T
        if D.dtype == torch.float32 and cancels(K, some, double(own.diagonal())):
            return False
        total[first : first + len(some), first:] += double(own).to(total)
        some.copy_(product)
        del product  # before the next one comes
    return True
