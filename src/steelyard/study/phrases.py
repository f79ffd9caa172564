"""Numbers and names as a sentence of the verdict has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from steelyard.study.judgement import Cell, Interval
from steelyard.study.plans import PlannedTask

PLAIN_SUM = "equal"


def method_name(method: str) -> str:
    return "The plain sum" if method == PLAIN_SUM else method


def lowered(text: str) -> str:
    """The sentence after a colon; method names keep their case."""
    return text[0].lower() + text[1:] if text.startswith(("The ", "Over ", "One ", "Whether ", "No ", "Of ")) else text


def listed(names: Iterable[str], word: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size(cell: Cell) -> float:
    return abs(cell.relative.mean) if cell.relative else 0.0


def _decimals(found: Interval, factor: float) -> int:
    """So many that the half-width shows two digits; four digits of the mean where there is no half-width."""
    half = (found.high - found.low) / 2 * factor
    shown = half / 10 if math.isfinite(half) and half > 0 else abs(found.mean * factor) / 1000
    return min(8, max(0, -math.floor(math.log10(shown)))) if shown > 0 else 2


def _number(value: float, decimals: int, sign: bool = False) -> str:
    text = f"{round(value, decimals) + 0.0:{'+' if sign else ''}.{decimals}f}"  # + 0.0: no minus zero
    return text.replace("-", "−")


def value_of(task: PlannedTask, value: float, found: Interval) -> str:
    factor, unit = (100.0, " %") if task.metrics[0].percent else (1.0, "")
    return _number(value * factor, _decimals(found, factor)) + unit


def amount_of(task: PlannedTask, found: Interval) -> str:
    """``−1.6 points (−2.1 to −1.1)``."""
    factor, unit = (100.0, " points") if task.metrics[0].percent else (1.0, "")
    return _bounded(found, factor, unit)


def relative_of(changes: Mapping[str, Interval | None]) -> str:
    """``ema +4.2 % (1.1 to 7.3), …``, the best first."""
    known = {method: found for method, found in changes.items() if found is not None}
    ordered = sorted(known, key=lambda method: known[method].mean, reverse=True)
    return ", ".join(f"{method} {_bounded(known[method], 100.0, ' %')}" for method in ordered)


def _bounded(found: Interval, factor: float, unit: str) -> str:
    decimals = _decimals(found, factor)
    mean = _number(found.mean * factor, decimals, sign=True) + unit
    if not math.isfinite(found.low):
        return mean
    low, high = (_number(bound * factor, decimals, sign=True) for bound in (found.low, found.high))
    return f"{mean} ({low} to {high})"
