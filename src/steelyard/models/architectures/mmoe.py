"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.models.base_architecture import Architecture, build_heads, whole
from steelyard.models.features import Features, run, stack
from steelyard.models.mixture import build_mixtures

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


class MMoE(Architecture):
    """Multi-gate mixture of experts: every task weighs the same experts by a gate of its own.

    ``outputs_t = head_t(Σ_e g_t(x)_e · f_e(x))``, ``g_t(x) = softmax(W_t x)``; every expert ``f_e`` is a copy of the
    problem's trunk, started from its own seed (the first one as the trunk of hard sharing).

    ``shared`` is the experts' outputs, stacked [E, N, ...]: experts are read by all tasks, gates and heads by one task
    each, and gates read the input (or these outputs), so nothing else leads back to the experts.

    Options (``mmoe(experts=4,gate=None)``):
        experts: how many.
        gate: what the gates read: the flattened ``input``, as in the paper, or ``features``, the mean of the experts'
            outputs; by default the former, unless inputs are no floating-point numbers.

    Parameters beside hard sharing: ``experts`` x the trunk, and ``tasks x experts x width of what gates read``.

    Single task: the problem's plain trunk and head, so that the baseline is that of every architecture. A gain over it
    may come from more parameters instead of from sharing.

    Deviations: the paper's experts are layers of one width; here they are whole trunks, of any kind.

    Source: Ma, Zhao, Yi, Chen, Hong, Chi, "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="mmoe(experts=3)")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('MMoE', torch.Size([4, 10]))
    """

    trunk: nn.ModuleList

    def __init__(
        self, experts: Sequence[nn.Module], mixtures: Sequence[nn.Module], heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(heads)
        self.trunk = nn.ModuleList(experts)
        self.mixtures = nn.ModuleList(mixtures)

    @classmethod
    def from_problem(
        cls, problem: Problem, tasks: Sequence[str], part: Part, *, experts: int = 4, gate: str | None = None
    ) -> MMoE:
        whole("mmoe", "experts", experts)
        mixtures = build_mixtures("mmoe", problem, tasks, part, gate, experts)
        return cls(build_experts(problem, part, experts), mixtures, build_heads(problem, tasks, part))

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        shared = stack([run(expert, inputs) for expert in self.trunk])
        outputs = {
            task: head(mixture(inputs, shared))
            for task, mixture, head in zip(self.tasks, self.mixtures, self.heads, strict=True)
        }
        return outputs, shared


def build_experts(problem: Problem, part: Part, count: int) -> list[nn.Module]:
    """Copies of the trunk, each from its own seed; the first starts as the trunk of a single-task network."""
    return [part(f"expert/{number}" if number else "trunk", problem.trunk) for number in range(count)]
