"""Fixed weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.constants import constant
from steelyard.base.observation import Seen
from steelyard.base.state import State
from steelyard.errors import OptionError, StateError, UnknownNameError, warn
from steelyard.methods.schedule_text import parse_entries


class Fixed(Balancer):
    """Weights that you choose: tuned by hand or by a search, the baseline next to the plain sum.

    ``Σ_k c_k L_k``.

    Args:
        tasks: task names.
        weights: ``c`` by task name, as a mapping or as text (``"left: 1, right: 0.5"``); 1 where a task is not named.
        common: the options of `Balancer`. (Priorities do the same in front of any other method.)

    Errors: unknown task names, and weights that are no finite numbers, raise `SteelyardError`.

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], requires_grad=True)
        >>> balancer = steelyard.Fixed(["a", "b"], weights={"b": 0.5})
        >>> balancer({"a": a, "b": b}).item()
        3.0
    """

    name = "fixed"
    looks_at_nothing = True
    independent = True  # by what a loss stage in front makes of its own losses
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
    entries = parse_entries(text, tasks, "step", None)
    for task, pieces in entries.items():
        if len(pieces) > 1:
            raise OptionError(f"the weight of {task!r} changes over time in {text!r}: that is the method 'schedule'")
    return {task: pieces[0].start for task, pieces in entries.items()}


def freeze(balancer: Balancer) -> Balancer:
    """See `Balancer.freeze`."""

    summary = balancer.summary()
    unseen = [task for task, steps in zip(summary.tasks, summary.steps, strict=True) if steps == 0]
    if unseen:
        raise StateError(
            f"there are no mean weights to freeze: {', '.join(unseen)} had no step since the start. Train first, or "
            "load the balancer's state"
        )
    if balancer.reads == "rows":
        warn(
            f"{balancer.name} may send the trunk a direction that no weights describe: its frozen weights are means, "
            "and leave that direction out"
        )
    priorities = balancer.priorities
    # Fixed multiplies the priorities in again: they also rule eval() and plain heads.
    weights = {
        task: mean / priorities[task] if priorities[task] else 1.0
        for task, mean in zip(summary.tasks, summary.means, strict=True)
    }
    return Fixed(
        balancer.tasks,
        weights=weights,
        priorities=priorities,
        heads=balancer.heads,
        on_nonfinite=balancer.on_nonfinite,
    )
