"""GradVac: rows pulled towards each other one after another, with targets that follow."""

from __future__ import annotations

import math

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh
from steelyard.methods.pcgrad import random_orders


class Reference:
    """The paper's algorithm on the gradients themselves."""

    def __init__(self, tasks: int, beta: float, update: str) -> None:
        self.target = [[0.0] * tasks for _ in range(tasks)]
        self.beta, self.update = beta, update

    def step(self, rows: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(rows[0])
        for i in range(len(rows)):
            pulled = rows[i].clone()
            for j in orders[:, i].tolist():
                rho = self.target[i][j]
                phi = float(pulled @ rows[j] / (pulled.norm() * rows[j].norm()))
                if phi < rho:
                    size = rho * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - rho**2)
                    pulled = pulled + pulled.norm() * size / (rows[j].norm() * math.sqrt(1 - rho**2)) * rows[j]
                    now = float(pulled @ rows[j] / (pulled.norm() * rows[j].norm()))
                    assert now == pytest.approx(rho, abs=1e-9)
                if phi < rho or self.update == "always":
                    self.target[i][j] = (1 - self.beta) * rho + self.beta * phi
            total += pulled
        return total


@pytest.mark.parametrize(("beta", "update"), [(0.01, "always"), (0.5, "below"), (0.3, "always")])
@pytest.mark.parametrize(("tasks", "ratio"), [(1, 1.0), (2, 1e6), (3, 1.0), (8, 100.0), (20, 1e6)])
def test_it_is_its_reference(tasks: int, ratio: float, beta: float, update: str) -> None:
    generator = torch.Generator().manual_seed(4)
    method = balancer("gradvac", tasks, beta=beta, update=update, generator=torch.Generator().manual_seed(4))
    reference = Reference(tasks, beta, update)
    for number in range(6):
        rows = random_rows(tasks, 60, number, ratio)
        expected = reference.step(rows, random_orders(tasks, generator))
        error = weigh(method, rows) @ rows - expected
        assert float(error.norm()) <= 1e-10 * float(rows.norm(dim=1).sum())


def test_targets_that_were_high_pull_orthogonal_gradients_together() -> None:
    method = balancer("gradvac(beta=0.5)", 2)
    close = torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]], dtype=torch.float64)
    for _ in range(10):
        weigh(method, close)
    apart = torch.tensor([[1.0, 0.0, 0.01], [0.0, 1.0, 0.01]], dtype=torch.float64)
    assert float(weigh(method, apart).min()) > 1.5


def test_equal_and_opposite_gradients_stay_finite() -> None:
    row = random_rows(1, 9, 0)
    method = balancer("gradvac(beta=0.9)", 2)
    for _ in range(40):
        assert weigh(method, torch.cat([row, 2 * row])).tolist() == pytest.approx([1.0, 1.0], rel=1e-3)
    for _ in range(40):
        assert bool(weigh(method, torch.cat([row, -2 * row])).isfinite().all())
