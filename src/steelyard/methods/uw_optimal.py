"""Uncertainty weighting with the uncertainties at their optimum: hard and soft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.ratios import reciprocal
from steelyard.base.state import State


class UWOptimal(Balancer):
    """Uncertainty weighting with every noise at its optimum: each loss is divided by its own value.

    ``w_k = 1 / L_k``, held fixed: the best ``σ`` of ``L/σ + log σ`` is ``L``. The gradient is that of `Log` with
    ``ε = 0``. A loss of exactly zero weighs 1.

    Args:
        tasks: task names.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott, Köhler, "Analytical Uncertainty-Based Loss Weighting in
    Multi-Task Learning" (2024), arXiv 2408.07985. Certainty: the first author's code, not the paper. Deviation: that
    code adds 1e-8 to the losses; here nothing is added.

    Example:
        >>> a, b = torch.tensor([2.0, 8.0], requires_grad=True)
        >>> balancer = steelyard.UWOptimal(["a", "b"])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights
        tensor([0.5000, 0.1250], dtype=torch.float64)
    """

    name = "uw-o"
    paper = "Kirchdorfer et al. (2024), arXiv 2408.07985"
    positive_losses = True
    independent = True
    rescaling = "contribution"

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return reciprocal(seen.losses)


class UWSoftOptimal(Balancer):
    """The softmax of inverse losses: small losses weigh most.

    ``w = softmax((1/L) / τ)``, held fixed; sums to 1 (``scale="sum"`` makes it T). Losses of exactly zero share all
    the weight.

    Args:
        tasks: task names.
        temperature: ``τ > 0``, in the unit of ``1/L``; larger is more even. The paper tunes it for each data set.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`.

    Source: as in `UWOptimal`. Certainty: the first author's code, not the paper. Deviation: that code adds 1e-8 to the
    losses; here nothing is added.

    Example:
        >>> a, b = torch.tensor([1.0, 0.5], requires_grad=True)
        >>> balancer = steelyard.UWSoftOptimal(["a", "b"])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # softmax of 1 and 2
        tensor([0.2689, 0.7311], dtype=torch.float64)
    """

    name = "uw-so"
    paper = "Kirchdorfer et al. (2024), arXiv 2408.07985"
    positive_losses = True

    def __init__(self, tasks: Sequence[str], *, temperature: float = 1.0, **common: Any) -> None:
        super().__init__(tasks, **common)
        at_least("temperature", temperature, 0, strictly=True)
        self.temperature = temperature

    def weigh(self, seen: Seen, state: State) -> Tensor:
        inverse = 1 / seen.losses.clamp(min=torch.finfo(torch.float64).tiny)
        return ((inverse - inverse.max()) / self.temperature).softmax(0)
