"""Exact k-means on a line, held against every grouping there is."""

from __future__ import annotations

import itertools

import pytest
import torch

from steelyard.methods.solvers.k_means import k_means_on_line


def least_error(values: list[float], groups: int) -> float:
    """The smallest squared error of all ways to colour the values."""
    errors = []
    for colours in itertools.product(range(groups), repeat=len(values)):
        members = [[v for v, c in zip(values, colours, strict=True) if c == colour] for colour in set(colours)]
        errors.append(sum(sum((v - sum(group) / len(group)) ** 2 for v in group) for group in members))
    return min(errors)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_no_grouping_has_a_smaller_error(groups: int, scale: float) -> None:
    for seed in range(5):
        values = scale * torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found = k_means_on_line(values, groups)
        assert len(found.unique()) == groups
        for mean in found.unique():
            assert values[found == mean].mean() == pytest.approx(mean.item(), rel=1e-12)
        assert float(((values - found) ** 2).sum()) == pytest.approx(least_error(values.tolist(), groups), rel=1e-10)


def test_clear_groups_are_found_among_many_values() -> None:
    centres = torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64)
    values = (centres[:, None] * (1 + 1e-3 * torch.linspace(-1, 1, 300, dtype=torch.float64))).flatten()
    shuffled = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    found = k_means_on_line(values[shuffled], 3)
    assert torch.allclose(found, centres.repeat_interleave(300)[shuffled], rtol=1e-12)


def test_groups_do_not_exceed_the_values_and_equal_values_are_fine() -> None:
    assert k_means_on_line(torch.tensor([3.0, 1.0], dtype=torch.float64), 5).tolist() == [3.0, 1.0]
    assert k_means_on_line(torch.full((4,), 0.1, dtype=torch.float64), 2).tolist() == pytest.approx([0.1] * 4)
