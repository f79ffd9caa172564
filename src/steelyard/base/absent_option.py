"""What is kept of the tasks that are absent from a batch: an option of every method, and the values it declares."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from steelyard.base.state import ELEMENTS, TASKS, Stateful
from steelyard.errors import OptionError

Memory = Literal["none", "numbers", "rows"]


LOSSES, SLOPES, SQUARES, ROWS = "last_losses", "last_slopes", "last_squared_norms", "last_rows"
"""Declared values, of each task's last batch: ``[T]`` its loss, the slope of the stages where there are any, and the
squared norm where norms are read; ``[T, P]``."""


def declare_memory(
    method: Stateful, memory: Memory, *, name: str, reads: str, where: Collection[str], every: int
) -> Memory:
    """Check the option and declare what it keeps."""
    small = reads in ("losses", "norms")
    if memory == "numbers" and not small:
        raise OptionError(
            f"memory='numbers' keeps losses and norms, and {name} reads the tasks' {reads}: use "
            "memory='rows', or 'none'"
        )
    if memory == "rows" and (reads in ("losses", "lookahead", "cross_gramian") or "trunk" not in where):
        raise OptionError(
            f"memory='rows' keeps the tasks' gradients at the trunk, and {name} "
            + ("has no use for them" if reads != "cross_gramian" else "compares those of two fresh batches")
        )
    if memory == "rows" and every > 1:
        raise OptionError(f"memory='rows' looks at every batch: it does not go with every={every}")
    if memory != "none":
        for value in (LOSSES, SLOPES) if reads == "losses" else (LOSSES, SLOPES, SQUARES):
            method.declare(value, (TASKS,), default=float("nan"), reduce="mean")
    if memory == "rows":
        method.declare(ROWS, (TASKS, ELEMENTS), reduce="mean")
    return memory
