"""What was last seen of the tasks that are absent from a batch: weights are relative, and one task alone has none.

Where every batch holds one task, or few of many, a method would weigh each against itself. So tasks that are absent
stand in with what was last seen of them: their loss and gradient norm (``memory="numbers"``, kept by every method that
reads no more), or their gradient too (``memory="rows"``, ``T x P`` numbers, for angles). Only the state of the tasks
in the batch moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from steelyard.errors import OptionError
from steelyard.gradients.rows import gramian_of_rows
from steelyard.observation import Seen
from steelyard.row_state import like_rows
from steelyard.state import ELEMENTS, TASKS, State

if TYPE_CHECKING:
    from steelyard.method import Method

Memory = Literal["none", "numbers", "rows"]

NUMBERS, ROWS = "last_seen", "last_rows"
"""Declared values: ``[3, T]``, loss, slope of the stages and squared norm of each task's last batch; ``[T, P]``."""


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


def declare_memory(method: Method, memory: Memory | None, every: int) -> Memory:
    """Check the option and declare what it keeps; ``None`` is the method's default."""
    small = method.reads in ("losses", "norms")
    if memory is None:
        memory = "numbers" if small else "none"
    if memory == "numbers" and not small:
        raise OptionError(
            f"memory='numbers' keeps losses and norms, and {method.name} reads the tasks' {method.reads}: use "
            "memory='rows', or 'none'"
        )
    if memory == "rows" and (method.reads in ("losses", "lookahead", "cross_gramian") or "trunk" not in method.where):
        raise OptionError(
            f"memory='rows' keeps the tasks' gradients at the trunk, and {method.name} "
            + ("has no use for them" if method.reads != "cross_gramian" else "compares those of two fresh batches")
        )
    if memory == "rows" and every > 1:
        raise OptionError(f"memory='rows' looks at every batch: it does not go with every={every}")
    if memory != "none":
        method.declare(NUMBERS, (3, TASKS), default=float("nan"), reduce="mean")
    if memory == "rows":
        method.declare(ROWS, (TASKS, ELEMENTS), reduce="mean")
    return memory


def recall(method: Method, seen: Seen, index: Tensor | None, factor: Tensor | None) -> Whole:
    """Fill in the absent tasks that are known; ``seen`` is what lies behind the stages."""
    alone = Whole(seen, index, factor, None)
    if method.memory == "none" or index is None:
        return alone
    if method.memory == "numbers" and seen.rows is not None:
        return alone  # read at a trunk whose rows are not kept
    last = method.committed(NUMBERS)
    known = ~last[0].isnan()
    if seen.squared_norms is not None:
        known = known & ~last[2].isnan()
    known[index] = True
    everyone = known.nonzero().squeeze(1)
    if len(everyone) == len(index):
        return alone
    present = torch.searchsorted(everyone, index)
    merged = [
        row.index_copy(0, index, new) for row, new in zip(last, _numbers(seen, factor, last[:, index]), strict=True)
    ]
    losses, slopes, squares = (row[everyone] for row in merged)
    whole = Seen(
        tasks=tuple(method.tasks[position] for position in everyone.tolist()),
        losses=losses,
        counts=torch.ones_like(losses).index_copy(0, present, seen.counts),
        squared_norms=None if seen.squared_norms is None else squares,
    )
    if seen.rows is not None:
        kept = method.committed(ROWS)
        wide = kept.to(seen.rows) if kept.shape[1] else seen.rows.new_zeros(len(kept), seen.rows.shape[1])
        rows = like_rows(wide, seen.rows, method.name).index_copy(0, index, seen.rows)[everyone]
        gramian = gramian_of_rows(rows)
        whole = replace(whole, rows=rows, gramian=gramian, squared_norms=gramian.diagonal())
    return Whole(whole, None if bool(known.all()) else everyone, None if factor is None else slopes, present)


def remember(method: Method, seen: Seen, factor: Tensor | None, state: State) -> None:
    """Keep what was seen of a step; ``seen`` is what lies behind the stages."""
    if method.memory == "none":
        return
    setattr(state, NUMBERS, torch.stack(_numbers(seen, factor, getattr(state, NUMBERS))))
    if method.memory == "rows" and seen.rows is not None:
        setattr(state, ROWS, seen.rows.clone())


def _numbers(seen: Seen, factor: Tensor | None, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        seen.losses,
        torch.ones_like(seen.losses) if factor is None else factor,
        last[2] if seen.squared_norms is None else seen.squared_norms,
    )
