"""Customized gate control: experts of all tasks beside experts of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.models.base_architecture import Architecture, build_heads, whole
from steelyard.models.features import Features, join, run, stack
from steelyard.models.mixture import build_mixtures

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


class CGC(Architecture):
    """Customized gate control: every task mixes experts of its own with experts that all tasks share.

    ``outputs_t = head_t(Σ_e g_t(x)_e · f_e(x))`` over the task's own and the shared experts, ``g_t(x) = softmax(W_t
    x)``; every expert is a copy of the problem's trunk, started from its own seed (the first shared one as the
    trunk of hard sharing).

    ``shared`` is the shared experts' outputs, stacked [E, N, ...]: a task's own experts, its gate and its head are
    reached by its loss alone.

    Options (``cgc(shared_experts=1,task_experts=1,gate=None)``):
        shared_experts: how many experts all tasks share.
        task_experts: how many each task has to itself.
        gate: what the gates read: the flattened ``input``, as in the paper, or ``features``, the mean of the experts'
            outputs; by default the former, unless inputs are no floating-point numbers.

    Parameters beside hard sharing: ``shared_experts + tasks x task_experts`` x the trunk, and ``tasks x (shared_experts
    + task_experts) x width of what gates read``.

    Single task: the problem's plain trunk and head, so that the baseline is that of every architecture.

    Deviations: the paper's experts are layers of one width; here they are whole trunks, of any kind.

    Source: Tang, Liu, Zhao, Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="cgc(shared_experts=2)")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('CGC', torch.Size([4, 10]))
    """

    trunk: nn.ModuleList

    def __init__(
        self,
        shared_experts: Sequence[nn.Module],
        task_experts: Sequence[Sequence[nn.Module]],
        mixtures: Sequence[nn.Module],
        heads: Mapping[str, nn.Module],
    ) -> None:
        super().__init__(heads)
        self.trunk = nn.ModuleList(shared_experts)
        self.task_experts = nn.ModuleList([nn.ModuleList(experts) for experts in task_experts])
        self.mixtures = nn.ModuleList(mixtures)

    @classmethod
    def from_problem(
        cls,
        problem: Problem,
        tasks: Sequence[str],
        part: Part,
        *,
        shared_experts: int = 1,
        task_experts: int = 1,
        gate: str | None = None,
    ) -> CGC:
        whole("cgc", "shared_experts", shared_experts)
        whole("cgc", "task_experts", task_experts)
        common, own = build_trunks(problem, tasks, part, shared_experts, task_experts)
        mixtures = build_mixtures("cgc", problem, tasks, part, gate, shared_experts + task_experts)
        return cls(common, own, mixtures, build_heads(problem, tasks, part))

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        shared = stack([run(expert, inputs) for expert in self.trunk])
        outputs = {}
        for task, experts, mixture, head in zip(self.tasks, self.task_experts, self.mixtures, self.heads, strict=True):
            own = stack([run(expert, inputs) for expert in experts.children()])
            outputs[task] = head(mixture(inputs, join(own, shared)))
        return outputs, shared


def build_trunks(
    problem: Problem, tasks: Sequence[str], part: Part, shared: int, own: int
) -> tuple[list[nn.Module], list[list[nn.Module]]]:
    """Copies of the trunk for all tasks and for each, by own seeds; the first starts as in a single-task network."""
    common = [part(f"expert/{number}" if number else "trunk", problem.trunk) for number in range(shared)]
    return common, [[part(f"expert/{task}/{number}", problem.trunk) for number in range(own)] for task in tasks]
