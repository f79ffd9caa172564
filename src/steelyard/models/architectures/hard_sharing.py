"""Hard parameter sharing: one trunk, one head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.models.base_architecture import Architecture, build_heads
from steelyard.models.features import Features, run

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


class HardSharing(Architecture):
    """Hard parameter sharing: ``outputs_t = head_t(trunk(x))`` for every task t.

    ``shared`` is the trunk's output. With one task this is the single-task network, the baseline of every
    architecture.

    Source: Caruana, "Multitask Learning", Machine Learning 28, 1997.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0)
        >>> outputs, features = network(torch.zeros(4, 121))
        >>> sorted(outputs), len(features)
        (['left', 'right'], 4)
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__(heads)
        self.trunk = trunk

    @classmethod
    def from_problem(cls, problem: Problem, tasks: Sequence[str], part: Part) -> HardSharing:
        return cls(part("trunk", problem.trunk), build_heads(problem, tasks, part))

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        features = run(self.trunk, inputs)
        outputs = {task: head(features) for task, head in zip(self.tasks, self.heads, strict=True)}
        return outputs, features
