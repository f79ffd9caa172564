"""Aligned-MTL: the alignment of the principal components on explicit rows."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh


def reference(rows: torch.Tensor, common_scale: str) -> torch.Tensor:
    """``B 1`` of the paper's Algorithm 1, from the eigenvalues of ``J Jᵀ``."""
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    scale = {"min": values.min(), "median": values.median(), "rmse": values.mean()}[common_scale]
    B = scale.sqrt() * vectors @ torch.diag(values**-0.5) @ vectors.T
    return B.sum(1)


@pytest.mark.parametrize("common_scale", ["min", "median", "rmse"])
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 40])
def test_it_is_its_reference(tasks: int, common_scale: str) -> None:
    rows = random_rows(tasks, 200, tasks, 3.0, 0.5)
    found = weigh(balancer("aligned-mtl", tasks, common_scale=common_scale), rows)
    expected = reference(rows, common_scale)
    assert float((found - expected).norm()) <= 1e-10 * float(expected.norm())


def test_short_gradients_keep_their_component() -> None:
    """At a norm ratio of 1e6 eigenvalues of ``G`` are lost in rounding; singular values of the rows are not."""
    rows = random_rows(4, 50, 0)
    rows *= torch.tensor([[1.0], [1e-2], [1e-4], [1e-6]], dtype=torch.float64)
    left, singular, _ = torch.linalg.svd(rows, full_matrices=False)
    expected = left @ torch.diag(singular[-1] / singular) @ left.T
    found = weigh(balancer("aligned-mtl", 4), rows)
    assert torch.allclose(found, expected.sum(1), rtol=1e-6)


def test_dependent_gradients_count_once() -> None:
    """Two of three gradients are equal: two components, both of the length of the shorter one."""
    rows = random_rows(2, 20, 1)
    rows = torch.cat([rows, rows[1:]])
    direction = weigh(balancer("aligned-mtl", 3), rows) @ rows
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    left = rows @ right[:2].T / singular[:2]
    expected = float(singular[1]) * (left.sum(0) @ right[:2])
    assert torch.allclose(direction, expected, rtol=1e-8)


def test_zero_gradients_are_left_out() -> None:
    rows = torch.cat([random_rows(2, 20, 0), torch.zeros(1, 20, dtype=torch.float64)])
    weights = weigh(balancer("aligned-mtl", 3), rows)
    assert float(weights[2]) == 0
    assert torch.allclose(weights[:2], weigh(balancer("aligned-mtl", 2), rows[:2]), rtol=1e-12)
    assert weigh(balancer("aligned-mtl", 2), 0 * rows[:2]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("length", [1e-14, 1e-20, 1e-30])
def test_gradients_beyond_the_reach_of_float64_are_left_out_too(length: float) -> None:
    rows = torch.cat([random_rows(2, 20, 0), length * random_rows(1, 20, 1)])
    weights = weigh(balancer("aligned-mtl", 3), rows)
    assert torch.allclose(weights[:2], weigh(balancer("aligned-mtl", 2), rows[:2]), rtol=1e-12)
