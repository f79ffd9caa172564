"""What was last seen of the tasks that are absent from a batch: weights are relative, and one task alone has none.

Weights are those of the tasks in the batch. Where every batch holds one task, or few of many, a method would weigh each
against itself; then tasks that are absent may stand in with what was last seen of them: their loss and gradient norm
(``memory="numbers"``), or their gradient too (``memory="rows"``, ``T x P`` numbers, for angles). Only the state of the
tasks in the batch moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steelyard.base.absent_option import LOSSES, ROWS, SLOPES, SQUARES
from steelyard.base.observation import Seen
from steelyard.base.row_state import like_rows
from steelyard.base.state import State
from steelyard.gradients.row_products import gramian_of_rows

if TYPE_CHECKING:
    from steelyard.base.method import Method


@dataclass(frozen=True)
class Whole:
    """The tasks that are known: those in the batch, and those that are remembered.

    Attributes:
        seen: of all of them, behind the stages.
        index: their positions among the balancer's; ``None``: all.
        factor: ``[T]``, the slopes of the stages.
        present: positions among these tasks of those in the batch; ``None``: all of them.
    """

    seen: Seen
    index: Tensor | None
    factor: Tensor | None
    present: Tensor | None


def recall(method: Method, seen: Seen, index: Tensor | None, factor: Tensor | None, refresh: bool) -> Whole:
    """Fill in the absent tasks that are known; ``seen`` is what lies behind the stages."""
    alone = Whole(seen, index, factor, None)
    if method.memory == "none" or index is None:
        return alone
    by_norms = _by_norms(method, seen, refresh)
    known = ~method.committed(LOSSES).isnan()
    if by_norms:
        known = known & ~method.committed(SQUARES).isnan()
    known[index] = True
    everyone = known.nonzero().squeeze(1)
    if len(everyone) == len(index):
        return alone
    present = torch.searchsorted(everyone, index)

    def with_last(name: str, now: Tensor) -> Tensor:
        return method.committed(name).index_copy(0, index, now)[everyone]

    losses = with_last(LOSSES, seen.losses)
    slopes = None if factor is None else with_last(SLOPES, factor)
    whole = Seen(
        tasks=tuple(method.tasks[position] for position in everyone.tolist()),
        losses=losses,
        counts=torch.ones_like(losses).index_copy(0, present, seen.counts),
        squared_norms=with_last(SQUARES, seen.squared_norms) if by_norms and seen.squared_norms is not None else None,
    )
    if seen.rows is not None:
        kept = method.committed(ROWS)
        wide = kept.to(seen.rows) if kept.shape[1] else seen.rows.new_zeros(len(kept), seen.rows.shape[1])
        rows = like_rows(wide, seen.rows, method.name).index_copy(0, index, seen.rows)[everyone]
        gramian = gramian_of_rows(rows)
        reached = seen.reached
        if reached is not None:
            reached = reached.new_zeros(len(everyone), reached.shape[1]).index_copy(0, present, reached)
        whole = replace(whole, rows=rows, gramian=gramian, squared_norms=gramian.diagonal(), reached=reached)
    return Whole(whole, None if bool(known.all()) else everyone, slopes, present)


def _by_norms(method: Method, seen: Seen, refresh: bool) -> bool:
    """Whether norms count: not where weights are held, since plain heads may have them there and others have not."""
    return refresh and seen.squared_norms is not None and method.reads != "losses"


def remember(method: Method, seen: Seen, factor: Tensor | None, state: State, refresh: bool) -> None:
    """Keep what was seen of a step; ``seen`` is what lies behind the stages."""
    if method.memory == "none":
        return
    setattr(state, LOSSES, seen.losses)
    if factor is not None:
        setattr(state, SLOPES, factor)
    if _by_norms(method, seen, refresh):
        assert seen.squared_norms is not None
        setattr(state, SQUARES, seen.squared_norms)
    if method.memory == "rows" and seen.rows is not None:
        setattr(state, ROWS, seen.rows.clone())
