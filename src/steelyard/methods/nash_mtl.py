"""Nash-MTL: multi-task learning as a bargaining game."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.method import Product
from steelyard.base.observation import Along, Seen
from steelyard.base.options import at_least
from steelyard.base.state import State
from steelyard.errors import OptionError
from steelyard.methods.amortised import Solver, amortised_rate, bounded_lengths, powers
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.bargaining import bargaining_point
from steelyard.methods.solvers.mirror_descent import bargaining_step
from steelyard.methods.solvers.unit_rows import UnitRows


class NashMTL(GramianBalancer):
    """The Nash bargaining solution: tasks gain in proportion, whatever the scale of their losses.

    ``w > 0`` with ``G w = p / w``, where ``p`` are the priorities (bargaining power, 1 unless given); it maximises
    ``Σ_k p_k log⟨g_k, d⟩`` over ``‖d‖ = const``. The length of ``d`` is ``√Σp`` always.

    Args:
        tasks: task names.
        normalise: divide ``G`` by its Frobenius norm first; ``w`` grows by ``√‖G‖_F``.
        max_norm: limit of ``‖d‖ = √(wᵀGw)`` at the point where gradients are read; ``None``: none. ``w`` is scaled
            down to it.
        solver, product, rate: as in `MGDA`. The amortised solver starts from weights of 1, finds ``‖d‖ = √Σp`` with
            its first step, and moves to the solution from there, with a rate of 1.
        common: the options of `Balancer`.

    A zero gradient takes no part in the game and has weight 1; a task of priority 0 has weight 0. Where a
    positive combination of the gradients vanishes the game has no solution: weights grow without bound along a
    direction that moves nothing; they end at some 1e7 times their ordinary size. ``scale="sum"`` keeps them in
    bounds.

    Cost: one backward pass through each task's head; the solver is exact (0.5 ms at T = 40).

    Source: Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya, "Multi-Task Learning as a Bargaining Game"
    (2022), arXiv 2202.01017, and the authors' code. Deviations: damped Newton steps to rounding error, where that code
    solves a sequence of 20 convex approximations and falls back to the last weights. It divides ``G`` by its norm for
    the solver's sake alone, and takes that back in the constraints: its weights are those without ``normalise``. It
    clips the gradient of the shared parameters to length 1, where ``max_norm=1`` scales the heads' with it.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 4.0]]) @ w  # gradients (1, 0) and (0, 4)
        >>> balancer = steelyard.NashMTL(["a", "b"], shared=[w])
        >>> _ = balancer({"a": a, "b": b})
        >>> balancer.last_weights  # G w = 1 / w
        tensor([1.0000, 0.2500], dtype=torch.float64)
    """

    name = "nash-mtl"
    paper = "Navon et al. (2022), arXiv 2202.01017"
    default_heads = "weighted"
    native_priorities = True
    rescaling = "contribution"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        normalise: bool = False,
        max_norm: float | None = None,
        solver: Solver = "exact",
        product: Product | None = None,
        rate: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        if max_norm is not None:
            at_least("max_norm", max_norm, 0, strictly=True)
        self.normalise, self.max_norm = normalise, max_norm
        if normalise or max_norm is not None:
            self.rescaling = "proportion"
        self.amortised_rate = amortised_rate(self, solver, product, rate, default=1.0)
        if self.amortised_rate is not None and (normalise or max_norm is not None):
            raise OptionError(
                "normalise and max_norm need the Gramian, which solver='amortised' never sees: ‖d‖ is √T there "
                "already; clip in the loop, or use solver='exact'"
            )

    @property
    def constant_length(self) -> float | None:
        """``w' G w = Σ p_k``, but for what ``max_norm`` cuts; a normalised game's varies."""
        if self.normalise:
            return self.max_norm
        length = math.sqrt(sum(self.priorities.values()))
        return length if self.max_norm is None else min(length, self.max_norm)

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return super().weigh(seen, state) if self.amortised_rate is None else bargained(self, seen, state)

    def look_along(self, along: Along, state: State) -> None:
        if self.amortised_rate is not None:
            learn_to_bargain(self, along, state, 1.0, self.amortised_rate)

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        weights = bargain(rows, self.preferences(seen), 1.0)
        if self.normalise:
            gramian = rows.cosines * rows.norms[:, None] * rows.norms
            size = gramian.norm().sqrt()
            weights = weights * torch.where(size > 0, size, torch.ones_like(size))
        if self.max_norm is not None:
            unit = weights * rows.norms
            length = (unit @ rows.cosines @ unit).clamp(min=0).sqrt()
            weights = weights * (self.max_norm / length).clamp(max=1)
        return weights


def bargained(method: Balancer, seen: Seen, state: State) -> Tensor:
    """The weights that the amortised solver holds; 0 without power."""
    power = powers(method, seen.tasks, seen.losses)
    return torch.where(power > 0, state.log_weights.exp(), torch.zeros_like(power))


def learn_to_bargain(method: Balancer, along: Along, state: State, alpha: float, rate: float) -> None:
    """A step of the amortised solver."""
    lengths = bounded_lengths(along, state)
    if lengths is not None:
        power = powers(method, along.tasks, along.weights)
        state.log_weights = bargaining_step(
            state.log_weights, along.weights, along.products, lengths, power, alpha, rate
        )


def bargain(rows: UnitRows, power: Tensor, alpha: float) -> Tensor:
    """The bargaining point of the tasks that have a gradient and power; 1 without a gradient, 0 without power."""
    playing = (rows.moving & (power > 0)).nonzero().squeeze(1)
    weights = torch.where(power > 0, torch.ones_like(power), torch.zeros_like(power))
    if len(playing):
        game = UnitRows(rows.norms[playing], rows.cosines[playing][:, playing])
        weights[playing] = bargaining_point(game, power[playing], alpha)
    return weights
