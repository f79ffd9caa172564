"""Small networks and readable references shared by the tests."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class TwoLayer:
    """A tanh trunk and one linear head per task whose loss is multiplied by a scale of its own, in any dtype."""

    def __init__(self, scales: Mapping[str, float], dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.scales = dict(scales)
        self.inputs = torch.randn(16, 6, dtype=torch.float64).to(dtype)
        self.trunk = nn.Sequential(nn.Linear(6, 9), nn.Tanh()).double().to(dtype)
        self.heads = nn.ModuleDict({task: nn.Linear(9, 3) for task in scales}).double().to(dtype)
        self.targets = {task: torch.randn(16, 3, dtype=torch.float64).to(dtype) for task in scales}

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(self.inputs)
        return {
            task: scale * (self.heads[task](features) - self.targets[task]).square().mean()
            for task, scale in self.scales.items()
        }, features

    def trunk_parameters(self) -> list[nn.Parameter]:
        return list(self.trunk.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.heads.parameters())

    def in_double(self) -> TwoLayer:
        """The same network with the same (rounded) numbers in float64."""
        twin = TwoLayer(self.scales, torch.float64)
        twin.inputs = self.inputs.double()
        twin.trunk.load_state_dict(self.trunk.state_dict())
        twin.heads.load_state_dict(self.heads.state_dict())
        twin.targets = {task: target.double() for task, target in self.targets.items()}
        return twin


def task_gradients(losses: Mapping[str, Tensor], parameters: list[nn.Parameter]) -> dict[str, list[Tensor]]:
    """``∇L_k`` at the parameters, by plain autograd."""
    return {
        task: [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(
                parameters,
                torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True),
                strict=True,
            )
        ]
        for task, loss in losses.items()
    }


def weighted_sum(weights: Mapping[str, float], gradients: Mapping[str, list[Tensor]]) -> list[Tensor]:
    """``Σ_k w_k ∇L_k`` in float64."""
    tasks = list(weights)
    return [
        sum((weights[task] * gradients[task][place].double() for task in tasks), torch.zeros(()).double())
        for place in range(len(gradients[tasks[0]]))
    ]


class Checkpointed(nn.Module):
    """A block that runs again in its backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False)
