"""MGDA: the multiple-gradient descent algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.method import Product
from steelyard.base.observation import Along, Seen
from steelyard.base.options import one_of
from steelyard.base.state import State
from steelyard.errors import OptionError
from steelyard.methods.amortised import Solver, amortised_rate, bounded_lengths, powers, shares
from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.mirror_descent import min_norm_step

Normalise = Literal["none", "l2", "loss", "loss+"]


class MGDA(Balancer):
    """The common descent direction: the point of smallest norm in the convex hull of the task gradients.

    ``w = argmin ‖Σ_k α_k g_k‖²`` over the simplex, on gradients divided by ``1`` (``none``), ``‖g_k‖`` (``l2``),
    ``L_k`` (``loss``) or ``L_k ‖g_k‖`` (``loss+``). On features this is MGDA-UB.

    Args:
        tasks: task names.
        normalise: as above. The weights found on the normalised gradients multiply the plain losses, as in the authors'
            code.
        solver: ``"exact"``, or ``"amortised"``: each step moves the weights towards the solution, by the products of
            its own direction with the tasks' gradients at the trunk. Nothing grows with T. With priorities ``π`` it
            solves ``min ‖Σ_k w_k g_k‖²`` over ``Σ_k π_k w_k = 1``: task ``k`` gains in proportion to ``π_k``.
        product, rate: of the amortised solver: how the products are found (``"difference"`` or ``"forward"``, a second
            forward pass by `again` before the attached optimizer steps; ``"backward"``, two backward passes in the
            call; by default what is given decides), and the step in the logarithms of the weights (0.2).
        common: the options of `Balancer`.

    Errors: where gradients are divided by losses, a negative loss raises `LossError`.

    Cost: one backward pass through each task's head; the solver is exact (0.1 ms at T = 3, a few ms at T = 40).
    Amortised, at any T: a forward pass, in forward mode about three, or two backward passes.

    Source: Désidéri (2012); Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization" (2018), arXiv
    1810.04650, and the authors' code. Deviation: an exact active-set solver where that code iterates, which stays up to
    2 % above the smallest norm, fails where 250 steps are too few, and gives neither of two tasks less than 0.001.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.MGDA(["a", "b"], shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """

    name = "mgda"
    paper = "Désidéri (2012); Sener & Koltun (2018), arXiv 1810.04650"
    reads = "gramian"
    uses_angles = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        normalise: Normalise = "none",
        solver: Solver = "exact",
        product: Product | None = None,
        rate: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        one_of("normalise", normalise, Normalise)
        self.normalise = normalise
        self.rescaling = "weights" if normalise in ("l2", "loss") else "none"
        self.positive_losses = normalise in ("loss", "loss+")
        self.amortised_rate = amortised_rate(self, solver, product, rate, default=0.2)
        if self.amortised_rate is not None and normalise != "none":
            raise OptionError(
                f"normalise={normalise!r} solves for gradients that are not those of the step, and solver='amortised' "
                "learns from the step alone: use solver='exact', or log+mgda(solver=amortised), which divides by losses"
            )

    def look_along(self, along: Along, state: State) -> None:
        lengths = bounded_lengths(along, state)
        if self.amortised_rate is not None and lengths is not None:
            power = powers(self, along.tasks, along.weights)
            state.log_weights = min_norm_step(
                state.log_weights, along.weights, along.products, lengths, power, self.amortised_rate
            )

    def weigh(self, seen: Seen, state: State) -> Tensor:
        if self.amortised_rate is not None:
            return shares(self, seen, state)
        assert seen.gramian is not None
        divisor = torch.ones_like(seen.losses)
        if self.normalise in ("loss", "loss+"):
            divisor = divisor * seen.losses
        if self.normalise in ("l2", "loss+"):
            divisor = divisor * seen.norms
        inverse = torch.where(divisor > 0, 1 / divisor, torch.ones_like(divisor))
        return min_norm_point(seen.gramian * inverse[:, None] * inverse)
