"""Studies: plan trials, run them in worker processes, keep them in a store, and judge them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steelyard.errors import PlanError, StoreError, StoreLockedError, TrainingError
    from steelyard.study.analysis.make_judgement import judge
    from steelyard.study.analysis.trained_network import network
    from steelyard.study.judgement import Judgement
    from steelyard.study.planning.make_plan import plan
    from steelyard.study.planning.merging import merge
    from steelyard.study.planning.plan import Plan
    from steelyard.study.planning.program_plan import plan_program
    from steelyard.study.running.engines.local import start_server
    from steelyard.study.running.forecast import Estimate, estimate
    from steelyard.study.running.run_plan import compare, run

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
    "merge",
    "network",
    "plan",
    "plan_program",
    "run",
    "start_server",
]

_HOMES = {
    "steelyard.errors": ("PlanError", "StoreError", "StoreLockedError", "TrainingError"),
    "steelyard.study.analysis.make_judgement": ("judge",),
    "steelyard.study.analysis.trained_network": ("network",),
    "steelyard.study.judgement": ("Judgement",),
    "steelyard.study.planning.make_plan": ("plan",),
    "steelyard.study.planning.plan": ("Plan",),
    "steelyard.study.planning.program_plan": ("plan_program",),
    "steelyard.study.running.forecast": ("Estimate", "estimate"),
    "steelyard.study.running.engines.local": ("start_server",),
    "steelyard.study.running.run_plan": ("compare", "run"),
    "steelyard.study.planning.merging": ("merge",),
}


def __getattr__(name: str) -> Any:
    # A report needs only the dataclasses of a judgement: torch and SciPy are imported by what asks for them.
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(home), name)
    raise AttributeError(f"module 'steelyard.study' has no attribute {name!r}")
