"""PE-LTR: the constrained problem, by an independent solver on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
import torch

from cells import every
from gramian_cases import balancer, random_rows, weigh
from steelyard.errors import OptionError, UnknownNameError


def reference(rows: torch.Tensor, floors: np.ndarray) -> float:
    """The smallest length over ``Σw = 1``, ``w ≥ c``."""
    tasks = len(rows)
    gramian = (rows @ rows.T).numpy()
    scale = gramian.trace() / tasks
    equality_first = np.concatenate([np.ones((1, tasks)), np.eye(tasks)])
    right = np.concatenate([[1.0], floors])
    found = quadprog.solve_qp(gramian / scale + 1e-12 * np.eye(tasks), np.zeros(tasks), equality_first.T, right, 1)[0]
    return float((torch.from_numpy(found) @ rows).norm())


@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 30])
@every("ratio", [1.0, 1e2])
@every("least", [0.0, 0.3, 0.9])
def test_it_is_the_shortest_with_the_floors(tasks: int, ratio: float, least: float) -> None:
    for conflict in (0.0, 1.0, 3.0):
        rows = random_rows(tasks, 40, tasks, ratio, conflict)
        weights = weigh(balancer("pe-ltr", tasks, least=least / tasks), rows)
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
        assert float(weights.min()) >= least / tasks - 1e-12
        shortest = reference(rows, np.full(tasks, least / tasks))
        assert float((weights @ rows).norm()) <= shortest * (1 + 1e-6) + 1e-9 * float(rows.norm(dim=1).max())


def test_without_floors_it_is_mgda_and_with_full_ones_the_mean() -> None:
    rows = random_rows(6, 20, 0, 10.0)
    assert weigh(balancer("pe-ltr", 6, least=0.0), rows) == pytest.approx(weigh(balancer("mgda", 6), rows), abs=1e-9)
    assert weigh(balancer("pe-ltr", 6, least=(1 - 1e-9) / 6), rows) == pytest.approx([1 / 6] * 6, abs=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_units_do_not_matter_and_floors_may_differ(scale: float) -> None:
    rows = random_rows(3, 20, 1)
    least = {"0": 0.5, "2": 0.1}
    found = weigh(balancer("pe-ltr", 3, least=least), rows * scale)
    assert found == pytest.approx(weigh(balancer("pe-ltr", 3, least=least), rows), abs=1e-9)
    assert float(found[0]) >= 0.5 - 1e-12
    assert float(found[2]) >= 0.1 - 1e-12


def test_the_default_leaves_half_to_choose() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 1e6]], dtype=torch.float64)
    assert weigh(balancer("pe-ltr", 2), rows) == pytest.approx([0.75, 0.25], abs=1e-6)


@pytest.mark.parametrize("least", [-0.1, 0.5, 1.0, float("nan")])
def test_floors_that_leave_nothing_to_choose_are_refused(least: float) -> None:
    with pytest.raises(OptionError, match="least="):
        balancer("pe-ltr", 2, least=least)


def test_a_floor_of_nobody_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="least="):
        balancer("pe-ltr", 2, least={"3": 0.1})
