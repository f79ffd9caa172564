"""What each task's samples send to a parameter that all samples meet in: a weight, a bias, a table.

A parameter's gradient is a sum over samples. Where each sample belongs to one task, it is taken task by task, in no
more multiplications than the whole sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.base.float64 import double
from steelyard.gradients.graph import Node, held_elsewhere
from steelyard.gradients.layers.embedding import is_linear, lookups
from steelyard.gradients.layers.products import cancel
from steelyard.gradients.samples.paths import Axis, Shape, operation


@dataclass(frozen=True)
class Owners:
    """Which task each sample belongs to.

    Attributes:
        of: ``[N]``, positions of tasks.
        tasks: their number.
    """

    of: Tensor
    tasks: int

    def along(self, axis: Axis, inner: int, length: int) -> Tensor:
        """The owner of each place along the dimension that holds the samples."""
        return self.of.repeat_interleave(inner).repeat(length // (inner * axis.samples))


@dataclass(frozen=True)
class Arrived:
    """What arrives at an output of a node.

    Attributes:
        gradient: in float32 or better.
        axis: where its samples lie.
    """

    node: Node
    gradient: Tensor
    axis: Axis
    owners: Owners

    def rows(self) -> Tensor | None:
        """The owner of each row; ``None`` where the samples lie in another dimension."""
        place = self.axis.within(tuple(self.gradient.shape))
        if place is None or place[0] != 0:
            return None
        return self.owners.along(self.axis, place[1], len(self.gradient))

    def summed(self, values: Tensor, shape: Shape) -> Tensor | None:
        """``values``, shaped as the gradient is, summed for each task to a parameter that was spread over them."""
        place = self.axis.within(tuple(values.shape))
        if place is None:
            return None
        dim, inner = place
        kept = dim - (values.dim() - len(shape))
        if kept >= 0 and shape[kept] != 1:
            return None
        aligned = (1,) * (values.dim() - len(shape)) + shape
        split = values.reshape(*values.shape[:dim], -1, self.axis.samples, inner, *values.shape[dim + 1 :])
        by_sample: Tensor = split.sum_to_size(*aligned[:dim], 1, self.axis.samples, 1, *aligned[dim + 1 :])
        by_sample = by_sample.movedim(dim + 1, 0).reshape(self.axis.samples, -1)
        summed = _ones(self.owners.of, self.owners.tasks, values) @ by_sample
        return summed.reshape(self.owners.tasks, *shape)


@dataclass(frozen=True)
class Outer:
    """Each task's gradient of a linear layer's weight, ``A_kᵀ D_k [in, out]``, not formed yet.

    Attributes:
        inputs, gradient: ``A [R, in]`` and ``D [R, out]``.
        rows: the owner of each row.
        tasks: how many there are.
    """

    inputs: Tensor
    gradient: Tensor
    rows: Tensor
    tasks: int

    def transposed(self) -> Outer:
        """Of the weight as the layer keeps it."""
        return Outer(self.gradient, self.inputs, self.rows, self.tasks)

    def formed(self) -> Tensor:
        """``[T, in, out]``."""
        sizes, (A, D) = _by_owner(self.tasks, self.rows, self.inputs, self.gradient)
        found = self.gradient.new_empty(self.tasks, A.shape[1], D.shape[1])
        for a, d, out in zip(torch.split(A, sizes), torch.split(D, sizes), found, strict=True):
            torch.mm(a.T, d, out=out)
        return found

    def gramian(self) -> Tensor | None:
        """``Σ_nm ⟨a_n, a_m⟩⟨d_n, d_m⟩`` over the rows of each two tasks, float64.

        ``None`` where forming is cheaper, or float32 loses too much.
        """
        count, inside, outside = len(self.rows), self.inputs.shape[1], self.gradient.shape[1]
        if count * count * (inside + outside) > (count + self.tasks**2) * inside * outside:
            return None
        products = (self.inputs @ self.inputs.T).mul_(self.gradient @ self.gradient.T)
        ones = _ones(self.rows, self.tasks, products)
        total, own = ones @ products @ ones.T, ones @ products.diagonal()
        return None if cancel(own, total.diagonal()) else double(total)


@dataclass(frozen=True)
class TableRows:
    """What is sent to rows of a table.

    Attributes:
        ids: ``[M]``, of the table's rows.
        sent: ``[M, width]``.
        rows: ``[M]``, the owner of each.
    """

    ids: Tensor
    sent: Tensor
    rows: Tensor


Contribution = Tensor | Outer | TableRows
"""Each task's gradient of a parameter, ``[T, …]``, or what it follows from."""


def sent_to(arrived: Arrived, position: int, shape: Shape) -> Contribution | None:
    """What each task sends to an input of a node in which all samples meet; ``None`` where that is not known.

    Args:
        arrived: at the node.
        position, shape: of the input.
    """
    formula = _FORMULAS.get(operation(arrived.node))
    if formula is None or held_elsewhere(arrived.node) is not None:  # a checkpointed block would be run again
        return None
    found = formula(arrived, position, shape)
    return found.reshape(arrived.owners.tasks, *shape) if isinstance(found, Tensor) else found


def _added(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    values = arrived.gradient * getattr(arrived.node, "_saved_alpha", 1) if position else arrived.gradient
    return arrived.summed(values, shape)


def _subtracted(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    found = _added(arrived, position, shape)
    return found if found is None or position == 0 else -found


def _multiplied(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    other = arrived.node._saved_other if position == 0 else arrived.node._saved_self
    return arrived.summed(arrived.gradient * other.detach(), shape)


def _expanded(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    return arrived.summed(arrived.gradient, shape)


def _addmm(arrived: Arrived, position: int, shape: Shape) -> Contribution | None:
    if arrived.node._saved_alpha != 1 or arrived.node._saved_beta != 1:
        return None
    if position == 0:
        return arrived.summed(arrived.gradient, shape)
    return _outer(arrived, arrived.node._saved_mat1) if position == 2 else None


def _mm(arrived: Arrived, position: int, shape: Shape) -> Contribution | None:
    return _outer(arrived, arrived.node._saved_self) if position == 1 else None


def _outer(arrived: Arrived, inputs: Tensor | None) -> Outer | None:
    rows = arrived.rows()
    if rows is None or inputs is None:
        return None
    return Outer(inputs.detach().to(arrived.gradient), arrived.gradient, rows, arrived.owners.tasks)


def _convolution(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    node, rows, places = arrived.node, arrived.rows(), arrived.gradient.dim() - 2
    if rows is None or position == 0:
        return None
    if position == 2:
        return arrived.summed(arrived.gradient, (*shape, *[1] * places))
    weight = node._saved_weight.detach().to(arrived.gradient)
    sizes, (X, D) = _by_owner(arrived.owners.tasks, rows, node._saved_input.detach().to(weight), arrived.gradient)
    settings = [node._saved_stride, node._saved_padding, node._saved_dilation]
    stride, padding, dilation = (each * places if len(each) == 1 else each for each in settings)
    found: Tensor = weight.new_zeros(arrived.owners.tasks, *weight.shape)
    for x, d, out in zip(torch.split(X, sizes), torch.split(D, sizes), found, strict=True):
        if len(d):
            more = (node._saved_transposed, node._saved_output_padding, node._saved_groups, (False, True, False))
            out.copy_(torch.ops.aten.convolution_backward(d, x, weight, None, stride, padding, dilation, *more)[1])
    return found


def _embedding(arrived: Arrived, position: int, shape: Shape) -> TableRows | None:
    """One row arrives for each id, or bag of ids."""
    node, width = arrived.node, arrived.gradient.shape[-1]
    if position != 0 or not is_linear(node):
        return None
    flat = Axis(arrived.axis.samples, arrived.axis.stride // width)
    if flat.stride * width != arrived.axis.stride:
        return None
    D = arrived.gradient.reshape(-1, width)
    found = lookups(node)
    return TableRows(found.ids, found.of(D), arrived.owners.along(flat, flat.stride, len(D))[found.rows])


def _layer_norm(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    node = arrived.node
    return _scaled(arrived, position, lambda: (node._saved_input - node._saved_result1) * node._saved_result2, shape)


def _group_norm(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    node, spread = arrived.node, (*shape, *[1] * (arrived.gradient.dim() - 2))

    def normal() -> Tensor:
        x: Tensor = node._saved_input
        groups = x.reshape(len(x), node._saved_group, -1)
        found: Tensor = (groups - node._saved_result1[..., None]) * node._saved_result2[..., None]
        return found.reshape(x.shape)

    return _scaled(arrived, position, normal, spread)


def _batch_norm(arrived: Arrived, position: int, shape: Shape) -> Tensor | None:
    node, spread = arrived.node, (*shape, *[1] * (arrived.gradient.dim() - 2))
    if node._saved_training is not False:
        return None

    def normalised() -> Tensor:
        mean, variance = node._saved_running_mean.view(spread), node._saved_running_var.view(spread)
        normal: Tensor = (node._saved_input - mean) * (variance + node._saved_eps).rsqrt()
        return normal

    return _scaled(arrived, position, normalised, spread)


def _scaled(arrived: Arrived, position: int, normal: Callable[[], Tensor], shape: Shape) -> Tensor | None:
    """The weight (1) and the bias (2) of a norm; ``shape``: as they are spread over the outputs."""
    if position not in (1, 2):
        return None
    values = arrived.gradient * normal().detach() if position == 1 else arrived.gradient
    return arrived.summed(values, shape)


def _ones(of: Tensor, tasks: int, like: Tensor) -> Tensor:
    """``[T, N]``, 1 where a sample is a task's: a product by it is faster than an indexed sum, and spreads NaN."""
    return (torch.arange(tasks, device=of.device)[:, None] == of).to(like)


def _by_owner(tasks: int, rows: Tensor, *tensors: Tensor) -> tuple[list[int], list[Tensor]]:
    """How many rows each task has, and tensors with these side by side."""
    sizes = torch.bincount(rows, minlength=tasks).tolist()
    if not bool((rows[1:] >= rows[:-1]).all()):
        order = rows.argsort(stable=True)
        return sizes, [each[order] for each in tensors]
    return sizes, list(tensors)


_FORMULAS: dict[str, Callable[[Arrived, int, Shape], Contribution | None]] = {
    "Add": _added,
    "Sub": _subtracted,
    "Mul": _multiplied,
    "Expand": _expanded,
    "Addmm": _addmm,
    "Mm": _mm,
    "Convolution": _convolution,
    "Embedding": _embedding,
    "EmbeddingBag": _embedding,
    "NativeLayerNorm": _layer_norm,
    "NativeGroupNorm": _group_norm,
    "NativeBatchNorm": _batch_norm,
}
