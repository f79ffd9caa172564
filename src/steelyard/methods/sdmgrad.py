"""SDMGrad: stochastic direction-oriented multi-objective gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least, within
from steelyard.base.state import State
from steelyard.methods.solvers.simplex import kept_shares, project_on_simplex, shares_of_present


class SDMGrad(Balancer):
    """A common descent direction near the mean gradient, from unbiased products of independent batches.

    With ``A = J₁ J₂ᵀ / s²`` of two probe batches, ``s = mean_k √max((J₁ J₂ᵀ)_kk, 0)``, ``steps`` projected steps
    with momentum from the ``w`` of the step before, at first 1/T: ``w ← Π_Δ(w - η (A w + λ A 1/T))``; then
    ``d = (J₃ᵀ w + λ J₃ᵀ 1/T) / (1 + λ)`` on the batch at hand, i.e. weights ``(w_k + λ/T) / (1 + λ)``, which sum to 1.
    Heads are left plain.

    Args:
        tasks: task names.
        lam: ``λ ≥ 0``, how strongly the mean gradient attracts.
        eta: ``η > 0``.
        momentum: ``0 ≤ momentum < 1``.
        steps: of the inner loop.
        common: the options of `Balancer`.

    Cost: trunk only; three backward passes per task: two for the probes, one for the batch at hand.

    Source: Xiao, Ban, Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms"
    (2023), arXiv 2305.18409, and the authors' code. Deviations: that code takes ``s = mean_k √((J₁ J₂ᵀ)_kk + 1e-4)``,
    an absolute size; here ``w`` stands still where ``s`` is zero (no probe agrees with itself). It multiplies ``d`` by
    T, "to match the sum" (``scale="sum"``), and clips the shared gradient to length 1, which is left to the loop. In
    its image experiments the three matrices are one and the same object, so that ``A`` is the last batch's own Gramian;
    here the batches are independent, as in the paper.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> def losses():  # gradients (1, 0) and (0, 3), in every batch
        ...     return dict(zip("ab", torch.tensor([[1.0, 0.0], [0.0, 3.0]]) @ w))
        >>> balancer = steelyard.SDMGrad(["a", "b"], lam=0, eta=0.1, steps=100, shared=[w])
        >>> _ = balancer(losses(), probes=[losses(), losses()])
        >>> balancer.last_weights  # without noise and λ, those of MGDA
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """

    name = "sdmgrad"
    paper = "Xiao, Ban, Ji (2023), arXiv 2305.18409"
    reads = "cross_gramian"
    where = frozenset({"trunk"})
    uses_angles = True
    default_heads = "plain"
    revision = 1  # shares of the tasks at hand were kept beside those of the absent ones as if they were of all

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        lam: float = 0.3,
        eta: float = 10.0,
        momentum: float = 0.5,
        steps: int = 20,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        at_least("lam", lam, 0)
        at_least("eta", eta, 0, strictly=True)
        within("momentum", momentum, 0, 1)
        at_least("steps", steps, 1)
        self.lam, self.eta, self.momentum, self.steps_inside = lam, eta, momentum, int(steps)
        self.declare("shares", default=1 / len(self.tasks), reduce="mean")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.cross_gramian is not None
        A = seen.cross_gramian
        mean = torch.full_like(A[0], 1 / len(A))
        w, velocity = shares_of_present(state.shares), torch.zeros_like(mean)
        scale = A.diagonal().clamp(min=0).sqrt().mean()
        if bool(scale != 0):
            A = A / scale**2
            for _ in range(self.steps_inside):
                velocity = self.momentum * velocity + A @ w + self.lam * (A @ mean)
                w = project_on_simplex(w - self.eta * velocity)
            state.shares = kept_shares(w, state.shares, len(self.tasks))
        return (w + self.lam * mean) / (1 + self.lam)
