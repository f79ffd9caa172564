"""Values as standard JSON has them."""

from __future__ import annotations

import math


def plain(value: object) -> object:
    """Names as text, tuples as lists, and numbers that are none as "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
