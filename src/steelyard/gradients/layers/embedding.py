"""Tables of embeddings, and bags of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.base.float64 import widest
from steelyard.gradients.graph import Node
from steelyard.gradients.layers.formula import Formula, Match, Uses, gramian_of
from steelyard.gradients.row_products import inner_products


def _table_gramian(uses: Uses, gradients: Sequence[Tensor]) -> Tensor:
    """Gradients of equal ids add up, others are orthogonal; of ids that occur once no table's row is formed."""
    found = [lookups(use.node).to(gradients[0].device) for use in uses]
    _, places, counts = torch.unique(torch.cat([each.ids for each in found]), return_inverse=True, return_counts=True)
    precise = functools.reduce(torch.promote_types, (gradient.dtype for gradient in gradients), torch.float32)
    tasks, width = len(gradients[0]), gradients[0].shape[-1]  # a single id, without dimensions, brings one row
    arrived = [gradient.reshape(tasks, -1, width).to(precise) for gradient in gradients]
    often = counts > 1
    slots = (often.cumsum(0) - 1)[places]  # of ids that occur several times
    alone, summed = [], gradients[0].new_zeros(tasks, int(often.sum()), width, dtype=precise)
    for each, slot, met, D in zip(
        found, *(whole.split([len(one.ids) for one in found]) for whole in (slots, often[places])), arrived, strict=True
    ):
        alone.append(each.where(~met).spread(D))
        repeated = each.where(met)
        for total, one in zip(summed, D, strict=True):
            total.index_add_(0, slot[met], repeated.of(one))  # task by task: a bag's counts once for each of its ids
    flats = [each.flatten(1) for each in (summed, *alone)]
    return functools.reduce(torch.add, [inner_products(flat, flat) for flat in flats])


@dataclass(frozen=True)
class Lookups:
    """Which row of a table received what: ``factor · D[row]``.

    Attributes:
        ids: ``[M]``, of the table's rows.
        rows: ``[M]``, of the gradient that arrives.
        factor: ``[M]``, or ``None`` for ones.
    """

    ids: Tensor
    rows: Tensor
    factor: Tensor | None

    def to(self, device: torch.device) -> Lookups:
        """The same where the gradient is, which comes to the CPU for float64 where its device has none."""
        factor = None if self.factor is None else self.factor.to(device)
        return Lookups(self.ids.to(device), self.rows.to(device), factor)

    def where(self, chosen: Tensor) -> Lookups:
        """Some of them, by a mask."""
        return Lookups(self.ids[chosen], self.rows[chosen], None if self.factor is None else self.factor[chosen])

    def spread(self, D: Tensor) -> Tensor:
        """``[T, …, width]`` with the inner products of what these send to the table, if no two have one id.

        ``Σ factor² ⟨D_i[row], D_j[row]⟩`` over the lookups needs each row once, however many of a bag's ids read it.
        """
        squares = D.new_ones(len(self.rows)) if self.factor is None else self.factor.square().to(D)
        sizes = D.new_zeros(D.shape[1]).index_add_(0, self.rows, squares)
        used = sizes.nonzero().squeeze(1)
        sent = D.index_select(1, used)
        return sent if len(used) == len(self.rows) and self.factor is None else sent * sizes[used].sqrt()[:, None]

    def of(self, D: Tensor) -> Tensor:
        """What each lookup sends to its row of the table, from the gradient ``[rows, width]`` that arrives."""
        sent = D[self.rows]
        return sent if self.factor is None else sent * self.factor.to(sent)[:, None]


_SUM, _MEAN = 0, 1
"""Modes of an `nn.EmbeddingBag`."""


def lookups(node: Node) -> Lookups:
    """Without those of the padding, which receives nothing."""
    ids = node._saved_indices.reshape(-1)
    rows = torch.arange(len(ids), device=ids.device)
    kept = ids != node._saved_padding_idx if node._saved_padding_idx < 2**62 else None  # -1 is saved unsigned
    factor = None
    if node.name() == "EmbeddingBagBackward0":
        offsets = node._saved_offsets
        rows = torch.searchsorted(offsets, rows.to(offsets.dtype), right=True) - 1  # the last bag of equal offsets
        if node._saved_mode == _MEAN:
            counted = rows if kept is None else rows[kept]
            factor = 1 / torch.bincount(counted, minlength=len(offsets)).clamp(min=1)[rows].to(widest(ids.device))
        elif (weights := node._saved_per_sample_weights) is not None:
            factor = weights.detach()
    elif node._saved_scale_grad_by_freq:
        _, place, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        factor = 1 / counts[place].to(widest(ids.device))
    if kept is None:
        return Lookups(ids, rows, factor)
    return Lookups(ids[kept], rows[kept], None if factor is None else factor[kept])


def is_linear(node: Node) -> bool:
    """Whether rows of a table are added up as they are.

    The largest number of a bag is another row's for each column, and by what torch divides a bag for frequency differs
    from one of its kernels to the next: both are left to autograd.
    """
    bag = node.name() == "EmbeddingBagBackward0"
    return not bag or (node._saved_mode in (_SUM, _MEAN) and not node._saved_scale_grad_by_freq)


TABLE = Formula(_table_gramian, lambda uses, tasks: True)


@gramian_of("EmbeddingBackward0", TABLE)
def _embedding(node: Node) -> Match | None:
    return Match((node.next_functions[0][0],), (), (), node)


@gramian_of("EmbeddingBagBackward0", TABLE)
def _embedding_bag(node: Node) -> Match | None:
    return Match((node.next_functions[0][0],), (), (), node) if is_linear(node) else None
