"""`GramianBalancer`: base of the methods whose weights are small mathematics on lengths and angles."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from steelyard.balancer import Balancer
from steelyard.observation import Reads, Seen
from steelyard.options import Heads
from steelyard.solvers.unit_rows import UnitRows
from steelyard.state import State


class GramianBalancer(Balancer):
    """A method implements `combine`, in float64 on the CPU, whatever the device of the losses.

    Where the Gramian holds NaN or inf, which only ``on_nonfinite="ignore"`` lets through, every weight is NaN and no
    state moves.
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
        """The weights ``[T]`` of the present tasks; rebinds what changes of ``state``."""
        raise NotImplementedError

    def preferences(self, seen: Seen) -> Tensor:
        """The priorities ``[T]`` of the present tasks, for methods that use them themselves."""
        return torch.tensor([self.priorities[task] for task in seen.tasks], dtype=torch.float64)
