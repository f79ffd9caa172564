"""Numbers and names as a sentence of the verdict has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from steelyard.study.judgement import Cell, Interval
from steelyard.study.planning.plan import PlannedTask
from steelyard.study.trial import PLAIN_SUM

# Of sentences that start with no name.
OPENINGS = ("The ", "Over ", "One ", "Whether ", "No ", "Not ", "Of ", "Share under ", "Train ", "Nothing is advised")
LARGEST = 1e7  # from here on with an exponent, as tables have it


def method_name(method: str) -> str:
    return "The plain sum" if method == PLAIN_SUM else method


def lowered(text: str) -> str:
    """The sentence after a colon; method names keep their case."""
    return text[0].lower() + text[1:] if text.startswith(OPENINGS) else text


def size(cell: Cell) -> float:
    return abs(cell.relative.mean) if cell.relative else 0.0


def difference_of(task: PlannedTask, value: float, alone: float, found: Interval) -> str:
    """``accuracy 91.10 % against 94.61 % alone, −3.51 points (−4.45 to −2.57)``, all to the same decimals.

    ``accuracy – against 94.61 % alone`` where there is no value.
    """
    factor, unit, points = _units(task)
    decimals = _decimals(found, factor, max(abs(value), abs(alone)))
    ours, theirs = (_number(number * factor, decimals) + unit * math.isfinite(number) for number in (value, alone))
    values = f"{task.metrics[0].name} {ours} against {theirs} alone"
    return values if math.isnan(found.mean) else f"{values}, {_bounded(found, factor, points, decimals)}"


def amount_of(task: PlannedTask, found: Interval) -> str:
    """``−1.6 points (−2.1 to −1.1)``."""
    factor, _, points = _units(task)
    return _bounded(found, factor, points, _decimals(found, factor, abs(found.mean)))


def plus_minus_of(task: PlannedTask, half: float) -> str:
    """``±1.6 points``, to two digits."""
    factor, _, points = _units(task)
    return f"±{half * factor:.2g}{points}"


def relative_of(changes: Mapping[str, Interval | None], unit: str = " %") -> str:
    """``ema +4.2 % (+1.1 to +7.3), …``, the best first; fractions, shown times 100."""
    known = {method: found for method, found in changes.items() if found is not None}
    ordered = sorted(known, key=lambda method: known[method].mean, reverse=True)
    return ", ".join(
        f"{method} {_bounded(known[method], 100.0, unit, _decimals(known[method], 100.0, abs(known[method].mean)))}"
        for method in ordered
    )


def _units(task: PlannedTask) -> tuple[float, str, str]:
    """What a value is multiplied by to be shown, its unit, and the unit of differences."""
    return (100.0, " %", " points") if task.metrics[0].percent else (1.0, "", "")


def _decimals(found: Interval, factor: float, largest: float) -> int:
    """So many that the half-width shows two digits, but the largest number no more than four; see `_beyond_zero`."""
    half, largest = (found.high - found.low) / 2 * factor, largest * factor
    shown = half / 10 if math.isfinite(half) and half > 0 else 0.0
    shown = max(shown, largest / 1000)
    decimals = min(8, max(0, -math.floor(math.log10(shown)))) if shown > 0 else 2
    return _beyond_zero((found.low * factor, found.high * factor), decimals)


def _number(value: float, decimals: int, sign: bool = False) -> str:
    if math.isnan(value):
        return "–"
    plus = "+" if sign else ""
    if abs(value) >= LARGEST:
        return f"{value:{plus}.2e}".replace("-", "−")
    return f"{round(value, decimals) + 0.0:{plus}.{decimals}f}".replace("-", "−")  # + 0.0: no minus zero


def _bounded(found: Interval, factor: float, unit: str, decimals: int) -> str:
    mean = _number(found.mean * factor, decimals, sign=True) + unit
    if not math.isfinite(found.low):
        return mean
    low, high = (_number(bound * factor, decimals, sign=True) for bound in (found.low, found.high))
    return f"{mean} ({low} to {high})"


def _beyond_zero(bounds: Iterable[float], decimals: int) -> int:
    """Up to two decimals more where a bound would round to zero: the reader asks on which side of it it lies."""
    close = [abs(bound) for bound in bounds if bound and round(bound, decimals) == 0]
    wanted = max((-math.floor(math.log10(bound)) for bound in close), default=decimals)
    return wanted if wanted <= decimals + 2 else decimals
