"""Every method that reads gradients, through the call, on gradients at which small mathematics breaks.

Left out: `auto-lambda` and the exact `hydalearn`, which read no gradients but losses after steps that are not taken.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cells import every
from gramian_cases import balancer, seen
from hard_gradients import STRUCTURES, Case, cases
from steelyard.errors import LossError
from steelyard.method_registry import method_class, method_names

READERS = [name for name in method_names() if method_class(name).reads not in ("losses", "lookahead")]
METHODS = [*READERS, "hydalearn(mode=first-order)", "log+cagrad", "log+upgrad"]
LOSS_ONLY = [name for name in method_names() if method_class(name).reads == "losses"]


@pytest.mark.filterwarnings("ignore::steelyard.errors.AngleWarning")  # orthogonal rows look like unshared samples
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_finite(method: str) -> None:
    """On each structure once, in a size and a precision that are drawn."""
    for case in cases(len(STRUCTURES), seed=sum(map(ord, method)), most=20 if method == "conicgrad" else 100):
        step(method, case)


@pytest.mark.filterwarnings("ignore::steelyard.errors.AngleWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow("fifty more sets of gradients for each method; ConicGrad's of many tasks are slow to solve")
def test_weights_are_finite_on_many_more(method: str) -> None:
    for case in cases(50, seed=1):
        step(method, case)


def losses_at(place: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {str(k): (row @ place).float() + 1 for k, row in enumerate(rows)}


def step(method: str, case: Case) -> None:
    """Two steps, at the trunk where rows are read there; weights, and what arrives, are finite."""
    rows = case.rows()
    instance = balancer(method, case.tasks, generator=torch.Generator().manual_seed(0))
    at_trunk = instance.reads in ("rows", "cross_gramian") and "trunk" in instance.where
    for _ in range(2):
        trunk = nn.Parameter(torch.zeros(case.size, dtype=case.dtype))
        place = trunk if at_trunk else trunk * 1

        probes = (
            {"probes": [losses_at(place, rows), losses_at(place, rows)]} if instance.reads == "cross_gramian" else {}
        )
        result = instance(losses_at(place, rows), shared=[trunk] if at_trunk else place, **probes)
        weights = instance.last_weights
        assert bool(weights.isfinite().all()), f"{method}, {case}: {weights}"
        if not instance.signed_weights:
            assert float(weights.min()) >= 0, f"{method}, {case}: {weights}"
        (arrived,) = torch.autograd.grad(result, trunk)
        if case.dtype not in (torch.float16, torch.bfloat16):  # what a method rightly asks for may be beyond them
            assert bool(arrived.isfinite().all()), f"{method}, {case}"


@every("method", [name for name in LOSS_ONLY if name != "coba"])
@pytest.mark.parametrize("size", [1e-40, 1e-12, 1.0, 1e12, 1e30])
def test_methods_that_read_losses_at_losses_of_any_size(method: str, size: float) -> None:
    """CoBa, which reads validation losses alone, is left out."""
    instance = balancer(method, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        values = size * torch.rand(64, generator=generator, dtype=torch.float64)
        values[::7] = 0.0
        # Losses of zero move something: 0 * x would be an absent task.
        losses = {str(k): value + torch.zeros((), requires_grad=True) for k, value in enumerate(values)}
        instance(losses)
        assert bool(instance.last_weights.isfinite().all())
        if instance.needs_after:
            instance.observe(after={task: loss.detach() * 0.9 for task, loss in losses.items()})


@pytest.mark.parametrize("size", [500, 2000])
def test_a_thousand_tasks(size: int) -> None:
    """DualProj has its answer in no time; UPGrad, which would take minutes, says what to take instead."""
    rows = torch.randn(1000, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    instance = balancer("dualproj", 1000)
    weights = instance.weigh(seen(rows), instance.working_state())
    assert isinstance(weights, torch.Tensor)
    reach = rows.norm(dim=1) * float(weights @ rows.norm(dim=1))
    assert bool((rows @ (weights @ rows) >= -1e-10 * reach).all())
    instance = balancer("upgrad", 1000)
    with pytest.raises(LossError, match=r"1,000 tasks of this batch that takes minutes.*take dualproj"):
        instance.weigh(seen(rows), instance.working_state())
