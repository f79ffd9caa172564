"""Studies: plan trials, run them in worker processes, keep them in a store, and judge them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steelyard.study.errors import PlanError, StoreError, StoreLockedError, TrainingError
    from steelyard.study.forecast import Estimate, estimate
    from steelyard.study.judgement import Judgement
    from steelyard.study.judging import judge
    from steelyard.study.planning import plan
    from steelyard.study.plans import Plan
    from steelyard.study.pool import start_server
    from steelyard.study.runner import compare, run

__all__ = [
    "Estimate",
    "Judgement",
    "Plan",
    "PlanError",
    "StoreError",
    "StoreLockedError",
    "TrainingError",
    "compare",
    "estimate",
    "judge",
    "plan",
    "run",
    "start_server",
]

_HOMES = {
    "errors": ("PlanError", "StoreError", "StoreLockedError", "TrainingError"),
    "forecast": ("Estimate", "estimate"),
    "judgement": ("Judgement",),
    "judging": ("judge",),
    "planning": ("plan",),
    "plans": ("Plan",),
    "pool": ("start_server",),
    "runner": ("compare", "run"),
}


def __getattr__(name: str) -> Any:
    # A report needs only the dataclasses of a judgement: torch and SciPy are imported by what asks for them.
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"steelyard.study.{home}"), name)
    raise AttributeError(f"module 'steelyard.study' has no attribute {name!r}")
