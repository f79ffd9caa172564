"""Small parts that every plan has: seeds, whole numbers, notes, the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from steelyard.errors import PlanError
from steelyard.io.lists_and_counts import counted
from steelyard.study.planning.plan import Tuning

MOST_SEEDS = 10_000
LARGEST_SEED = 2**63 - 1


def chosen_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Those that were asked for, counted from 0 where their number was."""
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise PlanError(f"seeds={seeds}: give how many, at most {MOST_SEEDS}, or which ones")
    chosen = tuple(dict.fromkeys(range(seeds) if isinstance(seeds, int) else seeds))
    if not chosen or min(chosen) < 0:
        raise PlanError(f"seeds={seeds!r}: give how many, at least 1, or which ones, none below 0")
    if max(chosen) > LARGEST_SEED:
        raise PlanError(f"seed {max(chosen)}: the largest is {LARGEST_SEED}")
    return chosen


def whole(name: str, value: int, besides: str = "") -> int:
    """The same, if it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{name}={value!r} must be a whole number of at least 1{besides}")
    return value


def patience_note(patience: int) -> str:
    """When trainings end."""
    return f"a training ends after {counted(patience, 'epoch')} without a better one on validation data"


def resplit_notes(tuning: Tuning | None, reason: str = "") -> list[str]:
    """That each seed has its own rows, why, and where rows serve twice."""
    why = f", {reason}" if reason else ""
    notes = [f"every seed has its own division of the rows into training, validation and test{why}"]
    if tuning is not None:
        several = len(tuning.seeds) > 1
        where = (
            f"the division{'s' if several else ''} of seed{'s' if several else ''} {', '.join(map(str, tuning.seeds))}"
        )
        notes.append(f"learning rates and constant weights are chosen on {where}: other divisions test on its rows")
    return notes


def machine() -> str:
    """``Linux x86_64, 2 cores, Intel(R) Xeon(R) CPU``."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    parts = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} cores", processor]
    return ", ".join(part for part in parts if part)
