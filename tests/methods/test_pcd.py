"""PCD: the corrected direction, by an independent solver on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
import torch

from gramian_cases import balancer, random_rows, weigh


def reference(rows: torch.Tensor, squares: torch.Tensor, tau: float) -> torch.Tensor:
    """The direction, for the averages ``E``; the first row is the main task's."""
    h = rows / squares.sqrt()[:, None]
    units = h / h.norm(dim=1, keepdim=True)
    found = quadprog.solve_qp(
        np.eye(rows.shape[1]), h[0].numpy(), units[1:].T.numpy(), tau * h[1:].norm(dim=1).numpy()
    )[0]
    direction = torch.from_numpy(found)
    return direction * rows[0].norm() / direction.norm()


@pytest.mark.parametrize("tau", [0.0, 0.1])
@pytest.mark.parametrize("ratio", [1.0, 1e6])
@pytest.mark.parametrize("tasks", [2, 3, 10, 30])
def test_it_is_its_reference_step_after_step(tasks: int, ratio: float, tau: float) -> None:
    """Averages move: the first step has lengths of one, later ones do not."""
    method = balancer("pcd", tasks, tau=tau, beta=0.8)
    average, mass = torch.zeros(tasks, dtype=torch.float64), 0.0
    for step in range(4):
        rows = random_rows(tasks, 60, 10 * tasks + step, ratio, conflict=2.0)
        average = 0.8 * average + 0.2 * rows.square().sum(1)
        mass = 0.8 * mass + 0.2
        weights = weigh(method, rows)
        expected = reference(rows, average / mass, tau)
        assert float((weights @ rows - expected).norm()) <= 1e-8 * float(rows[0].norm())
        assert bool((weights >= 0).all())
        assert float((weights @ rows).norm()) == pytest.approx(float(rows[0].norm()), rel=1e-9)


def test_tasks_that_agree_get_no_weight() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.5, 3.0]], dtype=torch.float64)
    assert weigh(balancer("pcd", 2), rows).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_opposite_equal_and_zero_gradients(scale: float) -> None:
    g = random_rows(1, 20, 0)[0] * scale
    zero = torch.zeros_like(g)
    assert weigh(balancer("pcd", 2), torch.stack([g, -g])).tolist() == [0.0, 0.0]
    assert weigh(balancer("pcd", 2), torch.stack([g, g])) == pytest.approx([1.0, 0.0])
    assert weigh(balancer("pcd", 2), torch.stack([g, zero])) == pytest.approx([1.0, 0.0])
    assert weigh(balancer("pcd", 2), torch.stack([zero, g])).tolist() == [1.0, 0.0]


def test_what_cannot_be_improved_is_not_hurt() -> None:
    """Two others that pull against each other: no direction improves both, so both are left as they are."""
    rows = torch.tensor([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    direction = weigh(balancer("pcd", 3, tau=0.1), rows) @ rows
    assert direction == pytest.approx([float(rows[0].norm()), 0.0, 0.0], abs=1e-6)
