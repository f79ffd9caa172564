"""``scale="sum"`` is defined wherever weights are: the studies' default must not end a training run."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh
from steelyard.method_registry import method_class, method_names

SIGNED = [
    name for name in method_names() if method_class(name).signed_weights and method_class(name).reads == "gramian"
]


@pytest.mark.parametrize("method", SIGNED)
def test_opposed_gradients_have_weights_whose_sizes_sum(method: str) -> None:
    """Nearly opposite gradients of unlike norms: ConFIG's weights sum to less than nothing."""
    row, other = random_rows(2, 50, 0)
    for rows in (torch.stack([row, -1e3 * row + other, 3 * row]), torch.stack([row, -row]), random_rows(40, 12, 3)):
        instance = balancer(method, len(rows), scale="sum", generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            weights = weigh(instance, rows)
            assert bool(weights.isfinite().all())
            total = float(weights.abs().sum())
            assert total == 0 or total == pytest.approx(len(rows))
