"""Bases of methods: `GramianBalancer`, mathematics on lengths and angles; `AuxiliaryBalancer`, for one main task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.constants import constant
from steelyard.base.observation import Reads, Seen
from steelyard.base.options import Heads
from steelyard.base.state import State
from steelyard.errors import OptionError, UnknownNameError, warn
from steelyard.methods.solvers.unit_rows import UnitRows

LAST = "weights_beside_main"


class AuxiliaryBalancer(Balancer):
    """A balancer with a main task, whose weight is 1.

    Args:
        tasks: task names.
        main: the main task.
        common: the options of `Balancer`.

    Example:
        >>> from steelyard.methods.bases import AuxiliaryBalancer
        >>> class Halves(AuxiliaryBalancer):
        ...     name = "halves"
        ...     def weigh(self, seen, state):
        ...         return torch.where(self.is_main(seen), 1.0, 0.5).double()
        >>> w = nn.Parameter(torch.ones(2))
        >>> Halves(["a", "b"], main="a", heads="weighted")({"a": w[0], "b": w[1]}).backward()
        >>> w.grad
        tensor([1.0000, 0.5000])
    """

    default_heads: ClassVar[Heads] = "plain"

    def __init__(self, tasks: Sequence[str], *, main: str | None = None, **common: Any) -> None:
        super().__init__(tasks, **common)
        if main is None:
            raise OptionError(
                f"{self.name} serves one main task and must be told which: give main={self.tasks[0]!r}, or another of "
                f"{', '.join(self.tasks)}"
            )
        if main not in self.tasks:
            raise UnknownNameError("task", str(main), self.tasks, "It stands in main=.")
        self.main = main

    def check_tasks(self, tasks: Sequence[str]) -> None:
        check_main(self.name, self.main, tasks)

    def is_main(self, seen: Seen) -> Tensor:
        """``[T]``, true for the main task; all false where it is absent."""
        return constant(tuple(task == self.main for task in seen.tasks), seen.losses.device, torch.bool)


class ComparingBalancer(AuxiliaryBalancer):
    """A balancer that weighs each task by a comparison with the main one, which a batch may lack.

    In a batch without the main task nothing can be compared: each task keeps the weight of the last batch with the main
    task that it was in, 1 before any. That is said once. Of the micro-batches of one step, those without the main task
    keep what they had before the step.

    Example:
        >>> from steelyard.methods.bases import ComparingBalancer
        >>> class Agreeing(ComparingBalancer):
        ...     name, reads = "agreeing", "gramian"
        ...     def compare(self, seen, state):
        ...         return (seen.gramian[seen.tasks.index(self.main)] > 0).double()
        >>> w = nn.Parameter(torch.ones(2))
        >>> balancer = Agreeing(["a", "b", "c"], main="a", shared=[w])
        >>> _ = balancer({"a": w[0], "b": w.sum(), "c": w[1] - w[0]})
        >>> balancer.last_weights
        tensor([1., 1., 0.], dtype=torch.float64)
    """

    def __init__(self, tasks: Sequence[str], *, main: str | None = None, **common: Any) -> None:
        super().__init__(tasks, main=main, **common)
        self.declare(LAST, default=1.0, reduce="mean")
        self._held_said = False

    def weigh(self, seen: Seen, state: State) -> Tensor:
        if self.main not in seen.tasks:
            self._say_held()
            return state.weights_beside_main
        weights = self.compare(seen, state)
        state.weights_beside_main = torch.where(weights.isfinite(), weights, state.weights_beside_main)
        return weights

    def compare(self, seen: Seen, state: State) -> Tensor:
        """The weights ``[T]`` of the present tasks, of which the main one is one; as `Method.weigh`."""
        raise NotImplementedError(f"{type(self).__name__} has no compare(self, seen, state): it is what it weighs by")

    def _say_held(self) -> None:
        if not self._held_said:
            self._held_said = True
            warn(
                f"{self.name} compares every task with the main one, and {self.main!r} is not in this batch: tasks "
                "keep their weights of the last batch that had it (1 before any), here and in every such batch. Where "
                "most batches lack it, draw them so that it is there"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        state_dict.setdefault(prefix + LAST, torch.ones_like(self.committed(LAST)))  # before 0.3 there was none
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def check_main(method: str, main: str, tasks: Sequence[str]) -> None:
    """Refuse a new list of tasks that leaves the main task out."""
    if main not in tasks:
        raise OptionError(
            f"{method} serves the main task {main!r}, which is not among {', '.join(tasks)}: make a new "
            "balancer with main= one of these"
        )


def cosines_with(main: int, seen: Seen) -> Tensor:
    """``[T]``, the cosine of every task's gradient and the main one's; 0 with a zero gradient, NaN stays NaN."""
    assert seen.gramian is not None
    lengths = seen.norms[main] * seen.norms
    return torch.where(lengths == 0, torch.zeros_like(lengths), seen.gramian[main] / lengths)


class GramianBalancer(Balancer):
    """Base of the methods whose weights are small mathematics on lengths and angles of the task gradients.

    A method implements `combine`, in float64 on the CPU, whatever the device of the losses. Where the Gramian holds NaN
    or inf, which only ``on_nonfinite="ignore"`` lets through, every weight is NaN and no state moves.

    Example:
        >>> from steelyard.methods.bases import GramianBalancer
        >>> class OneLength(GramianBalancer):
        ...     name = "one-length"
        ...     def combine(self, rows, seen, state):
        ...         return rows.multipliers(torch.ones_like(rows.norms))  # 1 / ‖g_k‖
        >>> w = nn.Parameter(torch.ones(2))
        >>> OneLength(["a", "b"], heads="weighted")({"a": 2 * w[0], "b": 4 * w[1]}, shared=[w]).backward()
        >>> w.grad
        tensor([1., 1.])
    """

    reads: Reads = "gramian"
    uses_angles: bool = True
    default_heads: ClassVar[Heads] = "plain"

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.gramian is not None
        gramian = seen.gramian.cpu()  # on an accelerator: one copy, in place of hundreds of tiny kernels
        if not bool(gramian.isfinite().all()):
            return torch.full_like(seen.losses, float("nan"))
        return self.combine(UnitRows.of(gramian), seen, state).to(seen.losses.device)

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        """The weights ``[T]`` of the present tasks; rebinds what changes of ``state``.

        Args:
            rows: the gradients as lengths ``rows.norms [T]`` and cosines ``rows.cosines [T, T]``;
                ``rows.multipliers(weights, of_zero=…)`` turns weights of unit gradients into weights of gradients.
            seen: losses, counts, and the Gramian itself.
            state: what was declared.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no combine(self, rows, seen, state): it is what it weighs by"
        )

    def preferences(self, seen: Seen) -> Tensor:
        """The priorities ``[T]`` of the present tasks, for methods that use them themselves."""
        return torch.tensor([self.priorities[task] for task in seen.tasks], dtype=torch.float64, device="cpu")
