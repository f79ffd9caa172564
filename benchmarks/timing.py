"""Interleaved timing in one process: every candidate runs once per round, so drift of the machine hits all alike."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median and quartiles over the rounds; median ratio to the same round's reference."""

    median: float
    low: float
    high: float
    ratio: float


def interleaved(
    candidates: Mapping[str, Callable[[], object]], reference: str, rounds: int, warmup: int = 3
) -> dict[str, Timing]:
    """Time the candidates in turn, ``rounds`` times over; the garbage collector rests meanwhile."""
    for run in candidates.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            # Start each round elsewhere, so that nobody always follows the same neighbour.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.perf_counter()
                candidates[name]()
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    base = seconds[reference]
    result = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(own / plain for own, plain in zip(values, base, strict=True))
        result[name] = Timing(median, low, high, ratio)
    return result


def machine() -> str:
    """One line on what the numbers were taken with."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}"
