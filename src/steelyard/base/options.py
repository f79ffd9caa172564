"""The options that every method takes, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from steelyard.errors import OptionError, UnknownNameError

NonFinite = Literal["raise", "drop_task", "skip_step", "ignore"]
Heads = Literal["plain", "weighted"]
Scale = Literal["paper", "sum"]
Sync = Literal["exact", "local-mean", "off"]


def one_of(name: str, value: object, choices: object) -> None:
    """Refuse an option value that is not among a Literal's."""
    if value not in get_args(choices):
        raise UnknownNameError(f"value of {name}", str(value), [str(choice) for choice in get_args(choices)])


def at_least(name: str, value: float, low: float, *, strictly: bool = False) -> None:
    """Refuse an option value below ``low``."""
    if not (value > low if strictly else value >= low):
        raise OptionError(f"{name} must be {'greater than' if strictly else 'at least'} {low:g}, got {value!r}")


def within(name: str, value: float, low: float, high: float) -> None:
    """Refuse an option value outside ``[low, high)``."""
    if not low <= value < high:
        raise OptionError(f"{name} must lie in [{low:g}, {high:g}), got {value!r}")


@dataclass(frozen=True)
class Guards:
    """Limits on the weights, in the units that ``scale`` gives them.

    Attributes:
        floor, cap: least and greatest weight.
        max_change: greatest change of a weight in one step, as a fraction of the mean size of the weights of the
            step before.
    """

    floor: float | None = None
    cap: float | None = None
    max_change: float | None = None

    def __post_init__(self) -> None:
        if self.max_change is not None:
            at_least("max_change", self.max_change, 0.0, strictly=True)
        if self.floor is not None and self.cap is not None and self.floor > self.cap:
            raise OptionError(f"floor {self.floor:g} exceeds cap {self.cap:g}")

    def __bool__(self) -> bool:
        return self.floor is not None or self.cap is not None or self.max_change is not None

    def apply(self, weights: Tensor, before: Tensor | None) -> Tensor:
        """``weights [T]`` within the limits; ``before`` holds the last step's, NaN for a task that had none."""
        if self.max_change is not None and before is not None:
            reach = self.max_change * before.abs().nanmean()
            limited = torch.minimum(torch.maximum(weights, before - reach), before + reach)
            weights = torch.where(before.isnan(), weights, limited)
        if self.floor is not None or self.cap is not None:
            weights = weights.clamp(self.floor, self.cap)
        return weights


def checked_priorities(priorities: Mapping[str, float] | None, tasks: tuple[str, ...]) -> dict[str, float]:
    """Priorities by task; tasks that are not named have priority 1."""
    given = dict(priorities or {})
    for name, value in given.items():
        if name not in tasks:
            raise UnknownNameError("task", str(name), tasks, "It stands in priorities=.")
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise OptionError(f"the priority of {name!r} must be a finite number of at least 0, got {value!r}")
    found = {name: float(given.get(name, 1.0)) for name in tasks}
    if not any(found.values()):
        raise OptionError("every priority is 0, so that nothing would be trained: give one task a greater one")
    return found


def checked_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """Task names as a tuple; none missing, none twice."""
    if isinstance(tasks, str):
        raise OptionError(f"tasks must be a list of names, got the text {tasks!r}: write [{tasks!r}]")
    if not isinstance(tasks, Iterable):
        raise OptionError(f"tasks must be a list of names, got {tasks!r}: write e.g. ['seg', 'depth']")
    if isinstance(tasks, set | frozenset):
        raise OptionError(f"tasks is a set, whose order differs from run to run: write {sorted(map(str, tasks))}")
    names = tuple(tasks)
    if not names:
        raise OptionError("tasks is empty: name at least one task")
    for name in names:
        if not isinstance(name, str) or not name:
            raise OptionError(f"task names are non-empty text, got {name!r}")
        if "," in name:
            raise OptionError(
                f"the task name {name!r} has a comma, which stands between two names in metrics() and in texts of "
                f"options: write e.g. {name.replace(',', '-')!r}"
            )
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise OptionError(f"the task name {twice[0]!r} is given twice: each task needs a name of its own")
    return names
