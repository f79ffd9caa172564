"""Fixed weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from steelyard.balancer import Balancer
from steelyard.constants import constant
from steelyard.errors import OptionError, UnknownNameError
from steelyard.observation import Seen
from steelyard.schedules import parse_plans
from steelyard.state import State


class Fixed(Balancer):
    """Weights that you choose: tuned by hand or by a search, the baseline next to the plain sum.

    ``Σ_k c_k L_k``.

    Args:
        tasks: task names.
        weights: ``c`` by task name, as a mapping or as text (``"left: 1, right: 0.5"``); 1 where a task is not named.
        common: the options of `Balancer`. (Priorities do the same in front of any other method.)

    Errors: unknown task names, and weights that are no finite numbers, raise `SteelyardError`.
    """

    name = "fixed"
    looks_at_nothing = True
    rescaling = "weights"
    signed_weights = True

    def __init__(
        self, tasks: Sequence[str], *, weights: Mapping[str, float] | str | None = None, **common: Any
    ) -> None:
        super().__init__(tasks, **common)
        if isinstance(weights, str):
            weights = _constants(weights, self.tasks)
        self.weights = checked_weights(weights or {}, self.tasks)

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return constant(tuple(self.weights.get(task, 1.0) for task in seen.tasks), seen.losses.device).clone()


def checked_weights(weights: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Weights by task, 1 where not named; unknown tasks and values that are no finite numbers are refused."""
    if not isinstance(weights, Mapping):
        raise OptionError(
            f"weights must map task names to numbers, got {weights!r}: write weights={{{tasks[0]!r}: 1.0}}"
        )
    for name, value in weights.items():
        if name not in tasks:
            raise UnknownNameError("task", str(name), tasks, "It stands in weights=.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise OptionError(f"the weight of {name!r} must be a finite number, got {value!r}")
    return {task: float(weights.get(task, 1.0)) for task in tasks}


def _constants(text: str, tasks: Sequence[str]) -> dict[str, float]:
    plans = parse_plans(text, tasks, "step", None)
    for task, plan in plans.items():
        if len(plan) > 1:
            raise OptionError(f"the weight of {task!r} changes over time in {text!r}: that is the method 'schedule'")
    return {task: plan[0].start for task, plan in plans.items()}
