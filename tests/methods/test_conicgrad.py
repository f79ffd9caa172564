"""ConicGrad: the problem as it stands, by a general solver on the rows, and by the bound of its dual."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import steelyard
from cells import every
from gramian_cases import balancer, random_rows, weigh
from steelyard.errors import OptionError


def reference(rows: Tensor, c: float) -> float:
    """The least gain at the best ``x``, in the unit of the longest gradient."""
    g = (rows / rows.norm(dim=1).max()).numpy()
    mean = g.mean(0) / np.linalg.norm(g.mean(0))
    conditions = [
        {"type": "ineq", "fun": lambda z: g @ z[:-1] - z[-1]},
        {"type": "ineq", "fun": lambda z: 1 - z[:-1] @ z[:-1]},
        {"type": "ineq", "fun": lambda z: mean @ z[:-1] - c},
    ]
    start = np.append(mean, (g @ mean).min())
    found = minimize(lambda z: -z[-1], start, constraints=conditions, options={"maxiter": 500, "ftol": 1e-14})
    return float(found.x[-1])


def gain(direction: Tensor, rows: Tensor, c: float) -> float:
    """The least gain along a direction of the cone, at the length that suits it best."""
    g = rows / rows.norm(dim=1).max()
    unit = direction / direction.norm()
    mean = g.mean(0) / g.mean(0).norm()
    assert float(unit @ mean) >= c - 1e-9, "outside the cone"
    least = float((g @ unit).min())
    return least if least > 0 else least * c / float(unit @ mean)


@every("c", [0.0, 0.3, 0.9])
@every("ratio", [1.0, 10.0])
@pytest.mark.parametrize(("tasks", "size"), [(1, 5), (2, 3), (3, 10), (5, 4), (8, 30)])
def test_it_is_the_best_of_the_cone(tasks: int, size: int, ratio: float, c: float) -> None:
    """More tasks than dimensions, and cones in which nothing improves all tasks, included."""
    for conflict in (0.0, 3.0):
        rows = random_rows(tasks, size, 10 * tasks + size, ratio, conflict)
        direction = weigh(balancer("conicgrad", tasks, c=c), rows) @ rows
        assert gain(direction, rows, c) == pytest.approx(reference(rows, c), abs=3e-7)
        assert float(direction.norm()) == pytest.approx(float(rows.mean(0).norm()), rel=1e-9)


@pytest.mark.parametrize("c", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("tasks", [2, 10, 40])
def test_no_direction_is_better_at_norm_ratios_of_a_million(tasks: int, scale: float, c: float) -> None:
    """By weak duality no ``x`` gains more than ``‖Σ ω_k g_k + μ u_0‖ - μ c``, whatever ``ω`` and ``μ`` are; with those
    of the weights, this one gains as much."""
    rows = random_rows(tasks, 60, tasks, 1e6, conflict=1.0) * scale
    weights = weigh(balancer("conicgrad", tasks, c=c), rows)
    direction, mean = weights @ rows, rows.mean(0)
    assert bool((weights >= 0).all())
    length = float(direction.norm())
    assert length == pytest.approx(float(mean.norm()), rel=1e-9)
    cosine = float(direction @ mean) / length**2
    assert cosine >= c - 1e-9
    share = float(weights.min()) if cosine < c + 1e-9 else 0.0
    omega = weights - share
    mu = share * tasks * length / float(omega.sum())
    bound = float(length / omega.sum()) - mu * c
    least = float((rows @ direction).min()) / length
    assert least >= bound - 1e-7 * float(rows.norm(dim=1).min()) - 1e-9 * abs(bound)


def test_without_a_cone_it_is_the_direction_of_mgda() -> None:
    rows = random_rows(6, 40, 3, 100.0)
    weights, mgda = (weigh(balancer(name, 6), rows) for name in ("conicgrad(c=0)", "mgda"))
    assert (weights / weights.sum()).tolist() == pytest.approx(mgda.tolist())


def test_a_narrow_cone_is_the_mean() -> None:
    rows = random_rows(6, 40, 3, 100.0, conflict=3.0)
    direction, mean = weigh(balancer("conicgrad", 6, c=1 - 1e-12), rows) @ rows, rows.mean(0)
    assert float((direction - mean).norm()) <= 3e-6 * float(mean.norm())


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_opposite_equal_and_zero_gradients(scale: float) -> None:
    g = random_rows(1, 20, 0)[0] * scale
    zero = torch.zeros_like(g)
    for rows in ([g, g], [g, -g], [zero, zero], [g]):
        weights = weigh(balancer("conicgrad", len(rows)), torch.stack(rows))
        assert weights.sum() == pytest.approx(1.0)
        assert (weights @ torch.stack(rows)).tolist() == pytest.approx(torch.stack(rows).mean(0).tolist())
    weights = weigh(balancer("conicgrad", 2), torch.stack([g, zero]))
    assert (weights @ torch.stack([g, zero])).tolist() == pytest.approx((g / 2).tolist(), rel=1e-6)
    assert weights.tolist() == pytest.approx([0.5, 0.5])  # of the zero too, which heads and scale="sum" see


def test_where_no_direction_improves_all_the_limit_hurts_none() -> None:
    """Two that pull against each other, and a third that is free: the pair is left as it is."""
    rows = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [3.0, 0.3, 0.0]], dtype=torch.float64)
    direction = weigh(balancer("conicgrad", 3), rows) @ rows
    assert direction.tolist() == pytest.approx([float(rows.mean(0).norm()), 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("c", [-0.1, 1.0])
def test_the_cone_is_none(c: float) -> None:
    with pytest.raises(OptionError, match=r"c must lie in \[0, 1\)"):
        steelyard.ConicGrad(["a"], c=c)
