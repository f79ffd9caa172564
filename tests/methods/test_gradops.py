"""GradOPS: projections on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gramian_cases import balancer, random_rows, weigh


def reference(rows: torch.Tensor) -> torch.Tensor:
    """The projected rows, one by one, by least squares on the unit rows of the others."""
    projected = []
    for i, row in enumerate(rows):
        others = torch.cat([rows[:i], rows[i + 1 :]])
        if not bool((others @ row < 0).any()):
            projected.append(row)
            continue
        basis = (others / others.norm(dim=1, keepdim=True)).T.numpy()
        found = np.linalg.lstsq(basis, row.numpy(), rcond=1e-8)[0]
        projected.append(row - torch.from_numpy(basis @ found))
    return torch.stack(projected)


@pytest.mark.parametrize("ratio", [1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1.0])
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 40])
def test_it_is_its_reference(tasks: int, scale: float, ratio: float) -> None:
    for conflict in (0.0, 1.0, 3.0):
        rows = random_rows(tasks, 60, tasks, ratio, conflict) * scale
        direction = weigh(balancer("gradops", tasks), rows) @ rows
        expected = reference(rows).sum(0)
        assert float((direction - expected).norm()) <= 1e-8 * float(rows.norm(dim=1).max())


@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
@pytest.mark.parametrize("size", [2, 5, 60])
def test_nobody_is_hurt(tasks: int, size: int) -> None:
    """Fewer dimensions than tasks included: what depends on the others and conflicts leaves nothing."""
    for conflict in (0.0, 3.0):
        rows = random_rows(tasks, size, 7 * tasks + size, 1e3, conflict)
        direction = weigh(balancer("gradops", tasks), rows) @ rows
        assert bool((rows @ direction >= -1e-7 * rows.norm(dim=1) * rows.norm(dim=1).max()).all())
        expected = reference(rows).sum(0)
        assert float((direction - expected).norm()) <= 1e-7 * float(rows.norm(dim=1).max())


def test_a_dependence_among_the_others_leaves_the_rest_as_it_is() -> None:
    """Two equal gradients, a third in conflict with both: the third has a part of its own, the two have none."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)
    weights = weigh(balancer("gradops", 3), rows)
    assert (weights @ rows).tolist() == pytest.approx([0.0, 2.0], abs=1e-9)


def test_without_a_conflict_it_is_the_plain_sum() -> None:
    rows = random_rows(5, 20, 0).abs()
    assert weigh(balancer("gradops", 5), rows).tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_opposite_equal_and_zero_gradients(scale: float) -> None:
    g = random_rows(1, 20, 0)[0] * scale
    zero = torch.zeros_like(g)
    assert weigh(balancer("gradops", 2), torch.stack([g, -g])).tolist() == [0.0, 0.0]
    assert weigh(balancer("gradops", 2), torch.stack([g, g])) == pytest.approx([1.0, 1.0])
    assert weigh(balancer("gradops", 2), torch.stack([g, zero])) == pytest.approx([1.0, 1.0])
    assert weigh(balancer("gradops", 2), torch.stack([zero, zero])) == pytest.approx([1.0, 1.0])
