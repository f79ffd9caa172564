"""IMTL: impartial multi-task learning, losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.base.learned import adam, declare_learned
from steelyard.base.stage import Stage
from steelyard.base.state import State
from steelyard.methods.imtl_g import IMTLG


class ImpartialScale(Stage):
    """IMTL-L in front of a method: ``e^{s_k} L_k``, with ``s`` descending ``e^{s_k} L_k - s_k`` after use.

    Args:
        initial: ``s`` at the start.
    """

    positive_losses = True

    def __init__(self, initial: float = 0.0) -> None:
        super().__init__()
        self.learning_rate = 1e-3
        declare_learned(self, "log_scale", initial)

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        scale = state.log_scale.exp()
        adam(state, "log_scale", scale * losses - 1, self.learning_rate)
        return scale * losses, scale


class IMTL(IMTLG):
    """A learnt scale brings all losses to 1, then the combined gradient is equally close to every task's.

    `IMTLG` on ``e^{s_k} L_k``, where ``s`` is learnt as by `IMTLL`; heads receive ``e^{s_k} ∇L_k``.

    Args:
        tasks: task names.
        initial: ``s`` at the start.
        common: the options of `Balancer`; ``learning_rate`` is that of ``s``.

    Errors: a negative loss raises `LossError`.

    Source, cost and degenerate gradients: as in `IMTLG`. Deviation: ``s`` is updated in closed form after use, by Adam
    without weight decay.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.IMTL(["a", "b"], shared=[w])
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # the projection on either is the same
        tensor([0.7500, 0.7500])
    """

    name = "imtl"

    def __init__(self, tasks: Sequence[str], *, initial: float = 0.0, **common: Any) -> None:
        super().__init__(tasks, **common)
        self.prepend_stages([ImpartialScale(initial)])

    def loss_stages(self) -> list[Stage]:
        """The stages in front, the learnt scale at the method's current learning rate."""
        stages = super().loss_stages()
        for stage in stages:
            if isinstance(stage, ImpartialScale):
                stage.learning_rate = self.current_learning_rate()
        return stages
