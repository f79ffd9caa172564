"""Norms and products of rows keep their digits, however long the rows and whatever their scale."""

import pytest
import torch

from steelyard.gradients.row_products import gramian_of_rows, inner_products, squared_norms_of_rows

PRECISE = 2e-6


def rows(tasks, size):
    # Not about zero: sums grow with the row, and what is added to them loses its digits.
    drawn = torch.randn(tasks, size, generator=torch.Generator().manual_seed(size))
    return drawn + 0.5


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 2**16, 2**16 + 1, 3_000_000])
def test_digits_are_kept_along_long_rows(tasks, size):
    """Added into one number, squares of ten million have lost three digits."""
    matrix = rows(tasks, size)
    exact = matrix.double() @ matrix.double().T
    scale = exact.diagonal().sqrt().clamp(min=1e-30)
    for found in (gramian_of_rows(matrix), inner_products(matrix, matrix)):
        assert found.dtype == torch.float64
        assert float(((found - exact) / torch.outer(scale, scale)).abs().max()) <= PRECISE
    norms = squared_norms_of_rows(matrix)
    assert norms.dtype == torch.float64
    assert float(((norms - exact.diagonal()) / scale.square()).abs().max()) <= PRECISE


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_squares_that_float32_does_not_hold_are_taken_in_float64(scale):
    matrix = rows(3, 1000) * scale
    exact = matrix.double() @ matrix.double().T
    assert torch.allclose(gramian_of_rows(matrix), exact, rtol=1e-12, atol=0)
    assert torch.allclose(squared_norms_of_rows(matrix), exact.diagonal(), rtol=1e-12, atol=0)


def test_what_is_not_finite_stays_so():
    matrix = rows(3, 10)
    matrix[1, 3], matrix[2, 4] = torch.inf, torch.nan
    assert squared_norms_of_rows(matrix).isfinite().tolist() == [True, False, False]
    assert gramian_of_rows(matrix).diagonal().isfinite().tolist() == [True, False, False]
