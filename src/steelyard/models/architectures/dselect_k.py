"""DSelect-k: gates that select k experts, by a smooth step that ends in a hard choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from steelyard.errors import OptionError
from steelyard.models.architectures.mmoe import build_experts
from steelyard.models.base_architecture import Architecture, build_heads, whole
from steelyard.models.features import Features, mix, run, stack

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """0 up to ``-γ/2``, 1 from ``γ/2`` on, and the cubic ``-2t³/γ³ + 3t/(2γ) + 1/2`` between: once differentiable."""
    t = t.clamp(-gamma / 2, gamma / 2)
    return -2 * (t / gamma) ** 3 + 1.5 * (t / gamma) + 0.5


class Selector(nn.Module):
    """``q = Σ_i softmax(α)_i r(z_i)`` over E experts, at most k of them above zero once every ``z`` has left the step.

    ``r(z)_e = Π_b S(z_b)`` or ``1 - S(z_b)``, as bit b of e is 1 or 0: a product of ``log2 E`` smooth steps, which adds
    up to one and becomes the choice of a single expert.
    """

    def __init__(self, experts: int, k: int, gamma: float) -> None:
        super().__init__()
        bits = int(math.log2(experts))
        self.gamma = gamma
        # Near the middle of the step, undecided; as in the authors' code.
        self.z = nn.Parameter(torch.empty(k, bits).uniform_(-gamma / 100, gamma / 100))
        self.alpha = nn.Parameter(torch.empty(k).uniform_(-0.05, 0.05))
        codes = torch.tensor([[number >> bit & 1 for bit in range(bits)] for number in range(experts)])
        self.register_buffer("codes", codes.bool(), persistent=False)

    def choices(self) -> Tensor:
        """``r(z_i)_e`` [k, E]."""
        on = smooth_step(self.z, self.gamma)[:, None]
        return torch.where(self.get_buffer("codes"), on, 1 - on).prod(2)

    def forward(self) -> Tensor:
        """``q`` [E]."""
        return self.alpha.softmax(0) @ self.choices()

    def entropy(self) -> Tensor:
        """``Σ_i H(r(z_i))`` in nats, with a finite slope where a probability is zero."""
        r = self.choices()
        return -(r * (r + 1e-6).log()).sum()


class DSelectK(Architecture):
    """DSelect-k: every task selects at most k of the same experts, and learns which by gradient descent.

    ``outputs_t = head_t(Σ_e q_te · f_e(x))``, ``q_t = Σ_i softmax(α_t)_i r(z_ti)`` (see `Selector`); every expert is a
    copy of the problem's trunk, started from its own seed (the first one as the trunk of hard sharing). Training
    minimises the tasks' losses plus ``entropy · Σ_t Σ_i H(r(z_ti))``, which drives selections to a hard choice; that
    term is `penalty`, is added after balancing, and reaches the selectors only.

    ``shared`` is the experts' outputs, stacked [E, N, ...]: selectors and heads belong to one task each, and selectors
    read nothing.

    Options (``dselect-k(experts=4,k=2,gamma=1.0,entropy=0.1)``):
        experts: how many; a power of two.
        k: how many a task may select.
        gamma: the width of the smooth step.
        entropy: the weight of the entropy in what is minimised; 0 leaves it out. At 1, selections on digits were hard
            after 200 steps and close to their random start; at 0.1 some still moved after 800.

    Parameters beside hard sharing: ``experts`` x the trunk, and ``tasks x k x (1 + log2 experts)``.

    Single task: the problem's plain trunk and head, so that the baseline is that of every architecture.

    Deviations: static gates only (the paper has gates per example too); powers of two only (the paper adds a
    penalty for other numbers); experts that no task selects are still computed. The default of ``entropy`` is ours: the
    paper tunes it by problem.

    Source: Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong, Chi, "DSelect-k: Differentiable Selection in
    the Mixture of Experts with Applications to Multi-Task Learning", NeurIPS 2021, arXiv:2106.03760.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="dselect-k(experts=4)")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('DSelectK', torch.Size([4, 10]))
    """

    trunk: nn.ModuleList

    def __init__(
        self,
        experts: Sequence[nn.Module],
        selectors: Sequence[nn.Module],
        heads: Mapping[str, nn.Module],
        entropy: float,
    ) -> None:
        super().__init__(heads)
        self.trunk = nn.ModuleList(experts)
        self.selectors = nn.ModuleList(selectors)
        self.entropy = entropy

    @classmethod
    def from_problem(
        cls,
        problem: Problem,
        tasks: Sequence[str],
        part: Part,
        *,
        experts: int = 4,
        k: int = 2,
        gamma: float = 1.0,
        entropy: float = 0.1,
    ) -> DSelectK:
        whole("dselect-k", "experts", experts, least=2)
        if experts & (experts - 1):
            raise OptionError(f"dselect-k: experts={experts} must be a power of two: 2, 4, 8, …")
        if whole("dselect-k", "k", k) > experts:
            raise OptionError(f"dselect-k: k={k} is more than the {experts} experts")
        for option, value, positive in (("gamma", gamma, True), ("entropy", entropy, False)):
            wrong = isinstance(value, bool) or not isinstance(value, (int, float))
            if wrong or not math.isfinite(value) or value < 0 or (positive and value == 0):
                kind = "above 0" if positive else "of at least 0"
                raise OptionError(f"dselect-k: {option}={value!r} must be a finite number {kind}")
        selectors = [part(f"selector/{task}", lambda: Selector(experts, k, gamma)) for task in tasks]
        return cls(build_experts(problem, part, experts), selectors, build_heads(problem, tasks, part), entropy)

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        shared = stack([run(expert, inputs) for expert in self.trunk])
        outputs = {
            task: head(mix(selector(), shared))
            for task, selector, head in zip(self.tasks, self.selectors, self.heads, strict=True)
        }
        return outputs, shared

    def penalty(self, outputs: Mapping[str, Tensor], shared: Features) -> Tensor | None:
        """``entropy · Σ_t Σ_i H(r(z_ti))``, or ``None`` at ``entropy=0``."""
        if self.entropy == 0:
            return None
        entropies = [selector.entropy() for selector in self.selectors if isinstance(selector, Selector)]
        return self.entropy * torch.stack(entropies).sum()
