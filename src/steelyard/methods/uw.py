"""Homoscedastic uncertainty weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.options import one_of
from steelyard.base.state import State

Form = Literal["half", "regression", "classification"]
_FACTORS: dict[str, tuple[float, float]] = {"half": (0.5, 0.5), "regression": (0.5, 0.5), "classification": (1.0, 0.5)}


class UW(Balancer):
    """Uncertainty weighting: each task's noise is learnt and divides its loss.

    ``Σ_k ½ (e^{-s_k} L_k + s_k)`` with ``s = log σ²`` learnt, hence ``w_k = ½ e^{-s_k}``. The gradient in ``s`` is
    ``½ (1 - e^{-s_k} L_k)``. ``form="classification"`` is the paper's ``L/σ² + log σ``, i.e.
    ``e^{-s_k} L_k + ½ s_k``; ``"regression"`` is its ``L/(2σ²) + log σ``, which is the same as ``"half"``. The
    objective may become negative; that is in order.

    Args:
        tasks: task names.
        initial: ``s`` at the start.
        form: which of the paper's objectives.
        learn: ``"inside"``, or ``"external"`` for a Parameter that your own optimizer trains.
        common: the options of `Balancer`; ``learning_rate`` is that of ``s``.

    Errors: a negative loss raises `LossError`: its weight would grow without bound.

    Source: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics" (2018), arXiv 1705.07115, and the authors' code. Deviations: that code, for regression, has twice the
    objective, ``Σ_k e^{-s_k} L_k + s_k``, and one Adam for ``s`` and the network; here ``s`` is updated in closed form
    after use, by Adam without weight decay.

    Example:
        >>> balancer = steelyard.UW(["a", "b"], learning_rate=0.1)
        >>> for a, b in torch.tensor([[4.0, 0.25], [4.0, 0.25]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        ...     print(balancer.last_weights)
        tensor([0.5000, 0.5000], dtype=torch.float64)
        tensor([0.4524, 0.5526], dtype=torch.float64)
    """

    name = "uw"
    paper = "Kendall, Gal, Cipolla (2018), arXiv 1705.07115"
    positive_losses = True
    independent = True

    def __init__(
        self, tasks: Sequence[str], *, initial: float = 0.0, form: Form = "half", learn: str = "inside", **common: Any
    ) -> None:
        super().__init__(tasks, **common)
        one_of("form", form, Form)
        self.form = form
        self.declare_learned("log_variance", initial, learn)

    def weigh(self, seen: Seen, state: State) -> Balance:
        on_loss, on_log = _FACTORS[self.form]
        log_variance = state.log_variance
        weights = on_loss * (-log_variance).exp()
        penalised = weights * seen.losses
        self.learn(state, "log_variance", on_log - penalised)
        return Balance(weights, (penalised + on_log * log_variance).sum())
