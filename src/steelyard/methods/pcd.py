"""PCD: the main task's direction, corrected until no other task is hurt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import within
from steelyard.base.state import State
from steelyard.methods.bases import ComparingBalancer, GramianBalancer
from steelyard.methods.solvers.nonnegative import nonnegative_minimum
from steelyard.methods.solvers.unit_rows import UnitRows

_UNBOUNDED = 1e8
"""Multiples of unit rows beyond which, by the solver's word, no direction satisfies all."""
_ROUNDING = 1e-9
"""What rounding leaves of opposite gradients, and is no direction."""


class PCD(ComparingBalancer, GramianBalancer):
    """The direction nearest to the main task's gradient that improves, or at least does not hurt, every other task.

    ``d ∝ argmin_x ½ ‖x - h_main‖²`` over ``⟨h_k, x⟩ ≥ τ ‖h_k‖²`` for all others, with ``h_k = g_k / √E_k``,
    ``E_k ← β E_k + (1 - β) ‖g_k‖²`` (bias-corrected), rescaled to ``‖d‖ = ‖g_main‖``. So ``d = Σ_k w_k g_k`` with
    ``w_k ≥ 0``, and others get no weight while they agree with the main task.

    Args:
        tasks: task names.
        main: the main task; must be given.
        tau: ``0 ≤ τ < 1``, by how much the others must improve; 0: they are not hurt.
        beta: ``0 ≤ β < 1``, per step.
        common: the options of `Balancer`.

    Where no direction improves all others by ``τ``, the step is made with ``τ = 0``. Where none but zero is left (a
    task pulls exactly against the main one), all weights are 0. A zero gradient asks for nothing and has weight 0; with
    a zero main gradient the main task alone has a weight, 1.

    In a batch without the main task there is no direction to correct: each task keeps the weight of the last batch with
    both, 1 before any, which is ours. That weight has the scale of the batch it is from.

    Cost: one backward pass through each task's head; the solver is exact (1 ms at T = 40).

    Source: TMLR (2026), arXiv 2606.29521. Certainty: the problem as restated from the authors' code, which we have not
    held it to; that the main task has no condition of its own, and the defaults of ``tau`` and ``beta``, are our
    reading. Deviations: averages are bias-corrected; the problem is solved exactly, on cosines.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]) @ w  # gradients (1, 0) and (-1, 1)
        >>> balancer = steelyard.PCD(["a", "b"], main="a", shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # as long as a's, and at a right angle to b's
        tensor([0.7071, 0.7071])
    """

    name = "pcd"
    paper = "TMLR (2026), arXiv 2606.29521"

    def __init__(
        self, tasks: Sequence[str], *, main: str | None = None, tau: float = 0.0, beta: float = 0.9, **common: Any
    ) -> None:
        super().__init__(tasks, main=main, **common)
        within("tau", tau, 0, 1)
        within("beta", beta, 0, 1)
        self.tau, self.beta = tau, beta
        self.declare("average", reduce="mean")
        self.declare("mass", reduce="mean")

    def compare(self, seen: Seen, state: State) -> Tensor:
        return GramianBalancer.weigh(self, seen, state)

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        home = state.average.device
        state.average = self.beta * state.average + (1 - self.beta) * rows.norms.square().to(home)
        state.mass = self.beta * state.mass + (1 - self.beta)
        sizes = (state.average / state.mass).sqrt().cpu()
        main = seen.tasks.index(self.main)
        weights = torch.zeros_like(rows.norms)
        if rows.norms[main] == 0:
            weights[main] = 1.0
            return weights
        # Lengths of h; the corrections' multiples of unit rows are the unknowns, those of the main task left out.
        lengths = rows.norms / torch.where(sizes > 0, sizes, torch.ones_like(sizes))
        others = torch.ones_like(lengths, dtype=torch.bool)
        others[main] = False
        cosines = rows.definite()
        unit = self._corrected(cosines, lengths, main, others & rows.moving, self.tau)
        if unit is None:
            unit = self._corrected(cosines, lengths, main, others & rows.moving, 0.0)
        assert unit is not None
        length = float((unit @ cosines @ unit).clamp(min=0).sqrt())
        if length <= _ROUNDING * float(unit.sum()):
            return weights
        return rows.multipliers(unit * (rows.norms[main] / length), of_zero=0.0)

    def _corrected(self, cosines: Tensor, lengths: Tensor, main: int, others: Tensor, tau: float) -> Tensor | None:
        """Multiples of the unit rows; none where no direction is as good as asked."""
        unit = torch.zeros_like(lengths)
        unit[main] = lengths[main]
        if bool(others.any()):
            wanted = tau * lengths[others]
            slack = lengths[main] * cosines[main][others] - wanted
            unit[others] = nonnegative_minimum(cosines[others][:, others], slack[None])[0]
        return None if tau > 0 and float(unit.max()) > _UNBOUNDED * float(lengths.max()) else unit
