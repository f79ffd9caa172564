"""Nash-MTL: the equations of the bargaining game, and the authors' normalisation and clip."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize

from gramian_cases import balancer, random_rows, weigh


@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 40, 100])
@pytest.mark.parametrize("conflict", [0.0, 1.0, 3.0])
def test_products_with_the_direction_are_inverse_to_the_weights(tasks: int, conflict: float) -> None:
    for ratio in (1.0, 1e6):
        rows = random_rows(tasks, 200, tasks, ratio, conflict) / ratio**0.5
        weights = weigh(balancer("nash-mtl", tasks), rows)
        assert float(weights.min()) > 0
        assert torch.allclose(rows @ (weights @ rows), 1 / weights, rtol=1e-8)
        assert float((weights @ rows).norm()) == pytest.approx(tasks**0.5)


def test_priorities_are_bargaining_power() -> None:
    rows = random_rows(4, 20, 3, 1e3)
    power = {"0": 3.0, "2": 0.25, "3": 0.0}
    weights = weigh(balancer("nash-mtl", 4, priorities=power), rows)
    p = torch.tensor([3.0, 1.0, 0.25], dtype=torch.float64)
    assert float(weights[3]) == 0
    assert torch.allclose(weights[:3] * (rows[:3] @ (weights @ rows)), p, rtol=1e-9)


def test_it_maximises_the_product_of_gains() -> None:
    """The paper's own definition: ``max Σ log⟨g_k, d⟩`` over a ball, by a general optimiser on the rows."""
    rows = random_rows(3, 4, 1, 5.0)
    direction = weigh(balancer("nash-mtl", 3), rows) @ rows
    direction = direction / direction.norm()

    def loss(d: object) -> float:
        unit = torch.as_tensor(d) / torch.as_tensor(d).norm()
        return -float((rows @ unit).clamp(min=1e-12).log().sum())

    found = minimize(loss, direction.numpy() + 0.1, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14})
    assert loss(direction) <= found.fun + 1e-10
    assert found.fun == pytest.approx(loss(direction), abs=1e-6)


def test_the_authors_normalisation_and_clip() -> None:
    rows = random_rows(3, 20, 0, 100.0)
    gramian = rows @ rows.T
    plain = weigh(balancer("nash-mtl", 3), rows)
    normalised = weigh(balancer("nash-mtl(normalise=True)", 3), rows)
    # α solves (G / ‖G‖_F) α = 1 / α
    assert torch.allclose(gramian / gramian.norm() @ normalised, 1 / normalised, rtol=1e-9)
    clipped = weigh(balancer("nash-mtl(normalise=True,max_norm=1.0)", 3), rows)
    assert float((clipped @ rows).norm()) == pytest.approx(1.0)
    assert torch.allclose(clipped / clipped.sum(), plain / plain.sum(), rtol=1e-9)
    assert torch.equal(weigh(balancer("nash-mtl(max_norm=100.0)", 3), rows), plain), "the clip only shortens"


def test_zero_gradients_take_no_part() -> None:
    rows = torch.cat([random_rows(2, 20, 0), torch.zeros(1, 20, dtype=torch.float64)])
    weights = weigh(balancer("nash-mtl", 3), rows)
    assert torch.allclose(weights[:2], weigh(balancer("nash-mtl", 2), rows[:2]), rtol=1e-12)
    assert float(weights[2]) == 1


def test_opposite_gradients_have_no_solution_and_finite_weights() -> None:
    row = random_rows(1, 20, 0)
    weights = weigh(balancer("nash-mtl(scale=sum)", 2), torch.cat([row, -3 * row]))
    assert weights.tolist() == pytest.approx([1.5, 0.5], rel=1e-6)
