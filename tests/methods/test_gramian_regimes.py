"""Every method that reads the Gramian, in the regimes where absolute thresholds and plain linear algebra fail."""

from __future__ import annotations

import pytest
import torch

from cells import every
from gramian_cases import balancer, random_rows, seen, weigh
from steelyard.balancing.balancer import Balancer
from steelyard.method_registry import method_class, method_names

METHODS = [name for name in method_names() if method_class(name).reads in ("norms", "gramian")]
ROOTS = pytest.mark.slow("solves a small program for every place of its root")
SOME_SLOW = [pytest.param(name, marks=[ROOTS] if name == "conicgrad" else []) for name in METHODS]


def regimes() -> dict[str, torch.Tensor]:
    row = random_rows(1, 50, 0)
    some = random_rows(5, 50, 1, conflict=2.0)
    return {
        "one task": row,
        "hundred tasks": random_rows(100, 150, 2),
        "more tasks than dimensions": random_rows(30, 8, 2),
        "norm ratio 1e6": random_rows(6, 50, 3, 1e6),
        "equal": row.expand(4, 50),
        "opposite": torch.cat([row, -row]),
        "opposite, norm ratio 1e6": torch.cat([row, -1e6 * row, row]),
        "norm ratios 1e20 and 1e40": torch.cat([some, 1e-20 * row, 1e-40 * some[:1]]),
        "one zero": torch.cat([some, 0 * row]),
        "all zero": torch.zeros(3, 50, dtype=torch.float64),
        "dependent": torch.cat([some, some[:2] - some[3:], 2 * some[:1]]),
        "Pareto-stationary": torch.cat([some, -some.sum(0, keepdim=True)]),
        "nearly equal": row + 1e-9 * some,
        "single precision, dependent": torch.cat([some, -some[:2], some[:1] + some[1:2]]).float(),
    }


def fresh(method: str, tasks: int) -> Balancer:
    return balancer(method, tasks, generator=torch.Generator().manual_seed(0))


@every("regime", regimes())
@pytest.mark.parametrize("method", SOME_SLOW)
def test_weights_are_finite_and_move_somewhere(method: str, regime: str) -> None:
    rows = regimes()[regime]
    instance = fresh(method, len(rows))
    for _ in range(3):
        weights = weigh(instance, rows)
        assert bool(weights.isfinite().all()), f"{regime}: {weights}"
        if not instance.signed_weights:
            assert float(weights.min()) >= 0
    if regime in ("one task", "hundred tasks", "norm ratio 1e6", "equal"):
        assert float((weights @ rows).norm()) > 0


@every("method", [*METHODS, "log+pcgrad", "log+aligned-mtl", "log+nash-mtl", "log+imtl-g"])
def test_a_task_that_fits_its_batch_to_the_last_bit_leaves_the_step_finite(method: str) -> None:
    """Its gradient is of 1e-39, and a weight that makes up for that is beyond float32 once the loss multiplies it."""
    torch.manual_seed(0)
    features = torch.zeros(20, requires_grad=True)
    rows = random_rows(3, 20, 0).float() * torch.tensor([[1.0], [30.0], [1e-39]])
    heads = torch.zeros(3, requires_grad=True)
    tasks = ["0", "1", "2"]
    instance = fresh(method, 3)
    shared = features * 1
    losses = {task: 100 * (rows[k] @ shared + heads[k] * rows[k, 0]) + (k < 2) for k, task in enumerate(tasks)}
    instance(losses, shared=shared).backward()
    for parameter in (features, heads):
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all()), instance.last_weights


@every("size", [1e-12, 1e12])
@pytest.mark.parametrize("method", SOME_SLOW)
def test_directions_do_not_depend_on_the_scale_of_all_gradients(method: str, size: float) -> None:
    for regime in ("one task", "norm ratio 1e6", "one zero", "dependent", "equal"):
        rows = regimes()[regime]
        first, other = fresh(method, len(rows)), fresh(method, len(rows))
        for _ in range(2):
            expected, found = step(first, rows), step(other, rows * size)
            expected, found = relative_direction(rows, expected), relative_direction(rows, found)
            assert float((found - expected).norm()) <= 1e-6, regime


def step(instance: Balancer, rows: torch.Tensor) -> torch.Tensor:
    """The weights, from the Gramian on; the state moves."""
    state = instance.working_state()
    answer = instance.weigh(seen(rows), state)
    instance.commit(state)
    return answer if isinstance(answer, torch.Tensor) else answer.weights


def relative_direction(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """``Σ w_k g_k`` relative to ``Σ |w_k| ‖g_k‖``: a direction that vanishes stays zero."""
    return weights @ rows / (weights.abs() @ rows.norm(dim=1)).clamp(min=1e-300)


def test_mgda_reaches_zero_at_pareto_stationary_points() -> None:
    for tasks in (2, 3, 10, 40):
        rows = random_rows(tasks, 50, tasks, 1e3)
        rows = torch.cat([rows, -(torch.rand(tasks, dtype=torch.float64) @ rows)[None]])
        reached = float((weigh(balancer("mgda", tasks + 1), rows) @ rows).norm())
        assert reached <= 1e-9 * float(rows.norm())
