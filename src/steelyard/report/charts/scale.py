"""Scales: from data to positions between 0 and 1, with ticks at round numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class AxisScale:
    """Linear or logarithmic; `reverse` puts the low end at 1."""

    low: float
    high: float
    log: bool = False
    reverse: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            position = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            position = (value - self.low) / (self.high - self.low)
        return 1 - position if self.reverse else position

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round numbers inside the scale."""
        if self.log and self.high / self.low > 5:
            return _log_ticks(self.low, self.high, count)
        step = _round_step((self.high - self.low) / max(1, count))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def fit(values: Iterable[float], pad: float = 0.06, log: bool = False, zero: bool = False) -> AxisScale:
    """The scale that shows all finite values with a little room around them."""
    found = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if zero:
        found.append(0.0)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    if log:
        room = max((high / low) ** pad, 1.05)
        return AxisScale(low / room, high * room, log=True)
    room = (high - low) * pad if high > low else abs(high) * 0.1 or 1.0
    return AxisScale(low - (0 if zero and low == 0 else room), high + (0 if zero and high == 0 else room))


def spans(values: Iterable[float]) -> float:
    """How many times the largest value exceeds the smallest; 1 unless all are positive."""
    found = [value for value in values if math.isfinite(value)]
    return max(found) / min(found) if found and min(found) > 0 else 1.0


def labels(ticks: list[float], signed: bool = False) -> list[str]:
    """Tick labels with the same, and no more than the needed, number of decimals."""
    steps = [abs(b - a) for a, b in itertools.pairwise(ticks)]
    even = bool(steps) and max(steps) < 1.001 * min(steps)
    texts = []
    for tick in ticks:
        if tick and not 1e-4 <= abs(tick) < 1e5:
            text = f"{tick:.3g}".replace("e-0", "e-").replace("e+0", "e")
        elif even:
            text = f"{tick:.{max(0, -math.floor(math.log10(steps[0]) + 1e-9))}f}"
        else:
            text = f"{tick:.12g}"
        plus = "+" if signed and tick > 0 else ""
        texts.append(plus + text.replace("-", "−"))
    return texts


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    # The nearest of 1, 2, 5 and 10 by ratio.
    return power * next(factor for factor, edge in ((1, 2), (2, 10), (5, 50), (10, 1e9)) if (step / power) ** 2 < edge)


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1, 2, 5), (1, 3), (1,)):
        ticks = [lead * 10.0**power for power in powers for lead in leads]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= count + 1:
            return ticks
    return ticks[:: math.ceil(len(ticks) / count)]
