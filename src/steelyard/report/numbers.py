"""Numbers as people read them: as many decimals as the uncertainty supports, a real minus sign, units."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from steelyard.study.judgement import Interval, TaskInfo

MISSING = "–"


def half(interval: Interval | None) -> float:
    """Half the width of an interval; NaN where there is none, infinite where one seed cannot give one."""
    return math.nan if interval is None else (interval.high - interval.low) / 2


def decimals_for(halves: Iterable[float], typical: float) -> int:
    """Decimals that show the typical half-width to two digits; without any, `typical` to four digits."""
    widths = [width for width in halves if math.isfinite(width) and width > 0]
    if widths:
        return _clamp(1 - math.floor(math.log10(median(widths))))
    if not math.isfinite(typical) or typical == 0:
        return 2
    return _clamp(3 - math.floor(math.log10(abs(typical))))


def fixed(value: float, decimals: int, signed: bool = False) -> str:
    """A number with so many decimals, a true minus sign and no "-0.0"."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e7:
        return f"{value:{'+' if signed else ''}.2e}".replace("-", "−")
    value = round(value, decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{value:{'+' if signed and value else ''}.{decimals}f}".replace("-", "−")


def plus_minus(interval: Interval | None, decimals: int, factor: float = 1.0, *, signed: bool = True) -> str:
    """ "+1.3 ±0.4", or the difference alone where the interval is unbounded."""
    if interval is None:
        return MISSING
    width = half(interval) * factor
    text = fixed(interval.mean * factor, decimals, signed=signed)
    return f"{text} ±{fixed(width, decimals)}" if math.isfinite(width) else text


def in_two(interval: Interval | None, decimals: int, factor: float) -> tuple[str, str]:
    """The difference and its half-width as two texts; empty where there is none."""
    if interval is None:
        return "", ""
    number, _, width = plus_minus(interval, decimals, factor).partition(" ")
    return number, width


def brackets(interval: Interval, decimals: int, factor: float = 1.0) -> str:
    """ "0.9 to 1.7"."""
    return f"{fixed(interval.low * factor, decimals)} to {fixed(interval.high * factor, decimals)}"


def factor(task: TaskInfo) -> float:
    """What a value is multiplied by to be shown."""
    return 100.0 if task.percent else 1.0


def unit(task: TaskInfo) -> str:
    return " %" if task.percent else ""


def compact(value: float) -> str:
    """Three significant digits, no exponent where it can be avoided: axes, costs, steps per second."""
    if not math.isfinite(value):
        return fixed(value, 0)
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}".replace("-", "−")
    decimals = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}".replace(",", "\u202f")
    return text.replace("-", "−")


def count(least: float, most: float) -> str:
    """ "660", or "20–13 200" where they are several numbers."""
    texts = [f"{round(number):,}".replace(",", "\u202f") for number in (least, most) if math.isfinite(number)]
    return "–".join(dict.fromkeys(texts)) or MISSING


def duration(seconds: float) -> str:
    """ "41 s", "3 min 20 s", "2 h 5 min"."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def duration_range(least: float, most: float) -> str:
    """ "41 s to 3 min 20 s"; one of the two where they read alike."""
    return " to ".join(dict.fromkeys(map(duration, (least, most))))


def memory(mebibytes: float) -> str:
    if not math.isfinite(mebibytes):
        return MISSING
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def _clamp(decimals: int) -> int:
    return max(0, min(6, decimals))
