"""PCGrad: rows projected one after another."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh
from steelyard.methods.pcgrad import random_orders


def reference(rows: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """The direction of the paper's Algorithm 1, on the gradients themselves."""
    total = torch.zeros_like(rows[0])
    for i in range(len(rows)):
        projected = rows[i].clone()
        for j in orders[:, i].tolist():
            product = projected @ rows[j]
            if product < 0:
                projected -= product / (rows[j] @ rows[j]) * rows[j]
        total += projected
    return total


@pytest.mark.parametrize("ratio", [1.0, 1e6])
@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("conflict", [0.0, 2.0])
def test_it_is_its_reference(tasks: int, conflict: float, ratio: float) -> None:
    rows = random_rows(tasks, 30, seed=tasks, ratio=ratio, conflict=conflict)
    for reduce, divisor in (("sum", 1), ("mean", tasks)):
        method = balancer("pcgrad", tasks, reduce=reduce, generator=torch.Generator().manual_seed(5))
        orders = torch.Generator().manual_seed(5)
        for _ in range(3):  # the generator moves on with every step
            expected = reference(rows, random_orders(tasks, orders)) / divisor
            error = weigh(method, rows) @ rows - expected
            assert float(error.norm()) <= 1e-10 * float(rows.norm(dim=1).sum())


def test_orders_are_permutations_of_the_others() -> None:
    orders = random_orders(6, torch.Generator().manual_seed(0))
    for i in range(6):
        assert sorted(orders[:, i].tolist()) == [j for j in range(6) if j != i]
    assert len({tuple(orders[:, i].tolist()) for i in range(6)}) == 6, "tasks share one order"


def test_two_conflicting_tasks_end_up_on_each_others_normal_planes() -> None:
    rows = torch.tensor([[1.0, 0.2], [-1.0, 1.0]], dtype=torch.float64)
    weights = weigh(balancer("pcgrad", 2), rows)
    # g_1' = g_1 + 0.4 g_2 and g_2' = g_2 + (0.8 / 1.04) g_1
    assert weights.tolist() == pytest.approx([1 + 0.8 / 1.04, 1 + 0.4])


def test_without_conflict_it_is_the_sum() -> None:
    rows = random_rows(4, 6, seed=0).abs()
    assert weigh(balancer("pcgrad", 4), rows).tolist() == [1.0] * 4
