"""Weights that follow a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.constants import vector
from steelyard.base.observation import Seen
from steelyard.base.options import at_least, one_of
from steelyard.base.state import State
from steelyard.errors import OptionError, UnknownNameError
from steelyard.methods.fixed import checked_weights
from steelyard.methods.schedule_text import Piece, parse_entries, parse_pieces, value_at

Per = Literal["step", "epoch"]


class Schedule(Balancer):
    """Weights that change over training as you write them down.

    ``Σ_k c_k(n) L_k`` with ``n`` the number of optimizer steps (or epochs) done, 0 in the first.

    Args:
        tasks: task names.
        weights: 1 for every task that is not named.

            - text: ``"seg: 1.0 until 80 %, then 0.1; depth: 0 to 1 until 500, then 1"``; the grammar stands in
              `steelyard.methods.schedule_text`. ``until 500`` covers ``n < 500``;
            - a mapping from task name to a number or to such text without the name:
              ``{"seg": "1.0 until 80 %, then 0.1"}``;
            - a function ``f(n)`` that returns weights by task name.
        per: what ``n`` counts: ``"step"``, or ``"epoch"`` (told by `Balancer.end_epoch`).
        total: length of training in that unit, for percentages.
        common: the options of `Balancer`.

    Errors: text that cannot be read raises `OptionError` with the part that cannot, and what may stand there.

    Example:
        >>> balancer = steelyard.Schedule(["a", "b"], weights="b: 1 until 2, then 0.1")
        >>> for a, b in torch.ones(3, 2, requires_grad=True):
        ...     print(round(balancer({"a": a, "b": b}).item(), 4))
        2.0
        2.0
        1.1
    """

    name = "schedule"
    looks_at_nothing = True
    independent = True  # by what a loss stage in front makes of its own losses
    rescaling = "weights"
    signed_weights = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        weights: str | Mapping[str, float | str] | Callable[[int], Mapping[str, float]] | None = None,
        per: Per = "step",
        total: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        one_of("per", per, Per)
        if total is not None:
            at_least("total", total, 0, strictly=True)
        self.per, self.total = per, total
        self.periodic = per == "epoch"
        self.declare("epochs", (), reduce="max")
        self._scheduled_tasks = None if callable(weights) else self.tasks
        self._at = weights if callable(weights) else self._written(weights or {})
        checked_weights(self._at(0), self.tasks)  # a typing error shows before training, not in it

    def check_tasks(self, tasks: Sequence[str]) -> None:
        if self._scheduled_tasks is not None and set(tasks) != set(self._scheduled_tasks):
            raise OptionError(
                f"the schedule was written for {', '.join(self._scheduled_tasks)}: make a new one for "
                f"{', '.join(tasks)}, or give weights= as a function of the step"
            )

    def weigh(self, seen: Seen, state: State) -> Tensor:
        progress = int(state.epochs.item()) if self.periodic else self.steps
        weights = checked_weights(self._at(progress), self.tasks)
        return vector([weights[task] for task in seen.tasks], seen.losses.device)

    def period_ended(self, state: State) -> None:
        state.epochs = state.epochs + 1

    def _written(self, weights: str | Mapping[str, float | str]) -> Callable[[int], Mapping[str, float]]:
        if isinstance(weights, str):
            return _Written(parse_entries(weights, self.tasks, self.per, self.total))
        if not isinstance(weights, Mapping):
            raise OptionError(f"weights must be text, a mapping or a function, got {weights!r}")
        for task in weights:
            if task not in self.tasks:
                raise UnknownNameError("task", str(task), self.tasks, "It stands in weights=.")
        texts = {task: value for task, value in weights.items() if isinstance(value, str)}
        entries = {task: parse_pieces(text, self.per, self.total) for task, text in texts.items()}
        constants = {task: value for task, value in weights.items() if not isinstance(value, str)}
        return _Written(entries, constants)


class _Written:
    """Entries and constants as a function of progress (a class, so that a balancer can be pickled)."""

    def __init__(self, entries: Mapping[str, Sequence[Piece]], constants: Mapping[str, float] | None = None) -> None:
        self.entries, self.constants = dict(entries), dict(constants or {})

    def __call__(self, progress: int) -> dict[str, float]:
        return self.constants | {task: value_at(pieces, progress) for task, pieces in self.entries.items()}
