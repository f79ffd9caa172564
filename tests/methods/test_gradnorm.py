"""GradNorm: its closed-form gradient against autograd through the written objective, and torch's own Adam."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh


class Reference:
    """``Σ |w_k ‖g_k‖ - sg(n̄ r_k^α)| / sg(n̄)`` by autograd over ``ξ``, on explicit rows."""

    def __init__(self, tasks: int, alpha: float, rate: float) -> None:
        self.logits = torch.zeros(tasks, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logits], lr=rate)
        self.alpha, self.initial = alpha, None

    def step(self, rows: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        if self.initial is None:
            self.initial = losses
        weights = len(losses) * self.logits.softmax(0)
        norms = (weights[:, None] * rows).norm(dim=1)
        ratios = losses / self.initial
        target = (norms.mean() * (ratios / ratios.mean()) ** self.alpha).detach()
        objective = (norms - target).abs().sum() / norms.mean().detach()
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()
        return weights.detach()


@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_it_is_its_reference(tasks: int, alpha: float) -> None:
    method, reference = balancer("gradnorm", tasks, alpha=alpha), Reference(tasks, alpha, 0.025)
    for number in range(12):
        rows = random_rows(tasks, 20, number, 100.0)
        losses = random_rows(1, tasks, 100 + number)[0].abs() + 0.1
        expected = reference.step(rows, losses)
        assert torch.allclose(weigh(method, rows, losses.tolist()), expected, rtol=1e-10)
        assert float(expected.sum()) == pytest.approx(tasks)


def test_weighted_norms_approach_each_other() -> None:
    rows = random_rows(3, 20, 0) * torch.tensor([[1.0], [3.0], [9.0]], dtype=torch.float64)
    method = balancer("gradnorm(alpha=0.0)", 3)
    weights = torch.stack([weigh(method, rows) for _ in range(400)])
    norms = weights * rows.norm(dim=1)
    assert float(norms[0].max() / norms[0].min()) > 5
    assert float(norms[-1].max() / norms[-1].min()) < 1.1


def test_a_step_without_gradients_teaches_nothing() -> None:
    method = balancer("gradnorm", 2)
    rows = random_rows(2, 20, 0, 10.0)
    weigh(method, 0 * rows)
    assert weigh(method, rows).tolist() == [1.0, 1.0]


def test_the_slow_task_gains_weight() -> None:
    rows = random_rows(1, 20, 0).expand(2, 20)
    method = balancer("gradnorm", 2)
    weigh(method, rows, [1.0, 1.0])
    for _ in range(5):
        weights = weigh(method, rows, [0.9, 0.1])
    assert float(weights[0]) > float(weights[1])
