"""IMTL-L: the loss half of impartial multi-task learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.state import State


class IMTLL(Balancer):
    """A scale is learnt for each loss, so that all scaled losses come to equal 1.

    ``Σ_k e^{s_k} L_k - s_k`` with ``s`` learnt, hence ``w_k = e^{s_k}``. The gradient in ``s`` is
    ``e^{s_k} L_k - 1``, zero at ``s_k = -log L_k``, where the objective is ``Σ_k 1 + log L_k``: `Log` is the exact
    solution that this one follows.

    Args:
        tasks: task names.
        initial: ``s`` at the start.
        learn: ``"inside"``, or ``"external"`` for a Parameter that your own optimizer trains.
        common: the options of `Balancer`; ``learning_rate`` is that of ``s``.

    Errors: a negative loss raises `LossError`: its scale would grow without bound.

    Source: Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, "Towards Impartial Multi-task Learning" (ICLR 2021).
    Deviation: ``s`` is updated in closed form after use, by Adam without weight decay.

    Example:
        >>> balancer = steelyard.IMTLL(["a", "b"], learning_rate=0.1)
        >>> for a, b in torch.tensor([[4.0, 0.25], [4.0, 0.25]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        ...     print(balancer.last_weights)
        tensor([1., 1.], dtype=torch.float64)
        tensor([0.9048, 1.1052], dtype=torch.float64)
    """

    name = "imtl-l"
    paper = "Liu et al. (ICLR 2021)"
    positive_losses = True
    independent = True

    def __init__(self, tasks: Sequence[str], *, initial: float = 0.0, learn: str = "inside", **common: Any) -> None:
        super().__init__(tasks, **common)
        self.declare_learned("log_scale", initial, learn)

    def weigh(self, seen: Seen, state: State) -> Balance:
        log_scale = state.log_scale
        weights = log_scale.exp()
        scaled = weights * seen.losses
        self.learn(state, "log_scale", scaled - 1)
        return Balance(weights, (scaled - log_scale).sum())
