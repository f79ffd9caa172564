"""Hard parameter sharing: one trunk, one head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from steelyard.models.building import Part
    from steelyard.problems.problem import Problem

Features = Tensor | tuple[Tensor, ...]


class HardSharing(nn.Module):
    """outputs_t = head_t(trunk(x)) for every task t.

    Every architecture returns the pair (outputs by task, shared features), so that the training loop can hand
    the features to a balancer as ``shared=``.

    Source: Caruana, "Multitask Learning", Machine Learning 28, 1997.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        # ModuleDict refuses names with dots and names such as "type", which are good task names.
        self.tasks = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    @classmethod
    def from_problem(cls, problem: Problem, tasks: Sequence[str], part: Part) -> HardSharing:
        heads = {}
        for name in tasks:
            task = problem.task(name)
            heads[name] = part(f"head/{name}", lambda task=task: problem.head(task))  # type: ignore[misc]
        return cls(part("trunk", problem.trunk), heads)

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Features]:
        features = self.trunk(inputs) if isinstance(inputs, Tensor) else self.trunk(*inputs)
        outputs = {task: head(features) for task, head in zip(self.tasks, self.heads, strict=True)}
        return outputs, features
