"""MultiBalance, as reconstructed: MGDA's problem on gradients divided by their average norms."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import nnls

from gramian_cases import balancer, random_rows, weigh


def nearest_point(rows: torch.Tensor) -> torch.Tensor:
    """``argmin ‖Σ α_k g_k‖`` over the simplex, by non-negative least squares on the rows."""
    system = torch.cat([rows.T, torch.ones(1, len(rows), dtype=rows.dtype)])
    target = torch.zeros(len(system), dtype=rows.dtype)
    target[-1] = 1
    alpha = torch.from_numpy(nnls(system.numpy(), target.numpy())[0])
    return alpha / alpha.sum()


@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("tasks", [1, 2, 5, 20])
def test_it_is_its_reference(tasks: int, beta: float) -> None:
    method = balancer("multibalance", tasks, beta=beta)
    sums, mass = torch.zeros(tasks, dtype=torch.float64), 0.0
    for number in range(5):
        rows = random_rows(tasks, 60, number, 1e3)
        sums, mass = beta * sums + (1 - beta) * rows.norm(dim=1), beta * mass + 1 - beta
        average = sums / mass
        expected = nearest_point(rows / average[:, None]) * average.mean() / average
        assert torch.allclose(weigh(method, rows), expected, rtol=1e-7, atol=1e-9 * float(expected.max()))
