"""References for weights that are learnt: autograd through the written objective, and torch's own Adam."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loss_sequences import Losses


class LearnedReference:
    """Minimise ``Σ_k objective(s_k, L_k)``, each ``s_k`` with an Adam of its own, so that absence is no step."""

    def __init__(self, objective: Callable[[Tensor, Tensor], Tensor], initial: float, rate: float) -> None:
        self.objective, self.initial, self.rate = objective, initial, rate
        self.learned: dict[str, Tensor] = {}
        self.optimizers: dict[str, torch.optim.Adam] = {}

    def step(self, losses: Losses) -> tuple[dict[str, float], float]:
        weights, value = {}, 0.0
        for task, number in losses.items():
            if task not in self.learned:
                self.learned[task] = torch.tensor(self.initial, dtype=torch.float64, requires_grad=True)
                self.optimizers[task] = torch.optim.Adam([self.learned[task]], lr=self.rate)
            loss = torch.tensor(number, dtype=torch.float64, requires_grad=True)
            term = self.objective(self.learned[task], loss)
            self.optimizers[task].zero_grad()
            term.backward()
            weights[task] = loss.grad.item()
            value += term.item()
            self.optimizers[task].step()
        return weights, value


def external_weights(balancer, name: str, epochs: list[list[Losses]], rate: float) -> list[dict[str, float]]:
    """The weights of every step where an outside SGD learns the Parameter ``name`` through the returned scalar."""
    optimizer = torch.optim.SGD([getattr(balancer, name)], lr=rate)
    found = []
    for losses in [losses for epoch in epochs for losses in epoch]:
        leaves = {task: torch.tensor(loss, dtype=torch.float64, requires_grad=True) for task, loss in losses.items()}
        optimizer.zero_grad()
        balancer(leaves).backward()
        optimizer.step()
        found.append({task: leaf.grad.item() for task, leaf in leaves.items()})
    return found
