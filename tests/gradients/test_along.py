"""Products with a change that comes later; `tests/balancing/test_ledger.py` has them in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steelyard.gradients.along import record


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_a_change_of_any_size_passes_through_float16(size: float) -> None:
    """A change of one in the first layer would be 144,000 behind the third, beyond what float16 holds."""
    torch.manual_seed(0)
    trunk = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    head = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        for layer in trunk[1:]:
            layer.weight.copy_(300 * torch.eye(8))
        head.weight.fill_(1e-3)
    parameters = [*trunk.parameters(), *head.parameters()]
    with torch.autocast("cpu", dtype=torch.float16):
        z = head(trunk(torch.full((4, 8), 0.2))).float()
    losses = [z.mean(), -3 * z.mean()]
    kept = record(losses, parameters)
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    changes = [torch.zeros_like(parameter) for parameter in parameters]
    changes[0] += size
    expected = [float((row[0].double() * changes[0]).sum()) for row in rows]
    assert kept.products(changes).tolist() == pytest.approx(expected, rel=1e-2)  # type: ignore[union-attr]
