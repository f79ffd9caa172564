"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings

from steelyard.errors import SteelyardWarning


def warn(message: str, category: type[SteelyardWarning] = SteelyardWarning) -> None:
    """Warn from the first frame outside torch and Steelyard, where the user can act on it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("steelyard", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)
