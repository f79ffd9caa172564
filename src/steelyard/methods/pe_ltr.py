"""PE-LTR: the common descent direction in which every task keeps a least weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import Heads
from steelyard.base.state import State
from steelyard.errors import OptionError, UnknownNameError
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.unit_rows import UnitRows


class PELTR(GramianBalancer):
    """MGDA with a floor: the shortest combination of the task gradients in which every task has at least its weight.

    ``w = argmin ‖Σ_k w_k g_k‖²`` over ``Σ_k w_k = 1``, ``w_k ≥ c_k``. With ``w = c + (1 - Σc) v`` that is MGDA on the
    gradients ``(1 - Σc) g_k + Σ_j c_j g_j``. (``mgda(floor=…)`` is something else: it raises weights once they are
    found.)

    Args:
        tasks: task names.
        least: ``c_k ≥ 0``: a number for every task, or one by name (0 for the others); below 1 in sum. By default half
            of an equal share, ``1 / 2T`` of the present tasks.
        common: the options of `Balancer`.

    Where some tasks are absent, a number is a floor of those that are there.

    Cost: one backward pass through each task's head; the solver is exact (0.1 ms at T = 3, a few ms at T = 40).

    Source: Lin, Chen, Pei, Sun, Xiao, Sun, Zhang, Ou, Jiang, "A Pareto-Efficient Algorithm for Multiple Objective
    Optimization in E-Commerce Recommendation", RecSys 2019. Certainty: the problem is the paper's, from descriptions
    and the authors' code, which is an example without floors. Deviations: it is solved exactly, where that code leaves
    the signs open and projects the answer, the same with two tasks; there it weighs the step after. The default of
    `least` is ours.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # MGDA gives b a weight of 0.1
        >>> balancer = steelyard.PELTR(["a", "b"], least=0.2, shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """

    name = "pe-ltr"
    paper = "Lin et al. (2019), RecSys"
    default_heads: ClassVar[Heads] = "weighted"

    def __init__(
        self, tasks: Sequence[str], *, least: float | Mapping[str, float] | None = None, **common: Any
    ) -> None:
        super().__init__(tasks, **common)
        self.least = dict(least) if isinstance(least, Mapping) else least
        self.check_tasks(self.tasks)

    def check_tasks(self, tasks: Sequence[str]) -> None:
        if isinstance(self.least, dict):
            for task in self.least:
                if task not in tasks:
                    raise UnknownNameError("task", str(task), tasks, "It stands in least=.")
        floors = self._floors(tasks)
        if not all(floor >= 0 for floor in floors) or not sum(floors) < 1:
            raise OptionError(
                f"least={self.least!r} gives {len(tasks)} tasks {sum(floors):.4g} in sum: floors are at least 0, and "
                "below 1 together, which leaves something to choose"
            )

    def _floors(self, tasks: Sequence[str]) -> list[float]:
        if self.least is None:
            return [0.5 / len(tasks)] * len(tasks)
        return [self.least.get(task, 0.0) if isinstance(self.least, dict) else self.least for task in tasks]

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        assert seen.gramian is not None
        floors = torch.tensor(self._floors(seen.tasks), dtype=torch.float64, device="cpu")
        rest = 1.0 - floors.sum()
        moved = rest * torch.eye(len(floors), dtype=torch.float64, device="cpu") + floors
        gramian = moved @ seen.gramian.detach().double().cpu() @ moved.T
        return floors + rest * min_norm_point(gramian)
