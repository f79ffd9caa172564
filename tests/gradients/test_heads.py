"""Task gradients kept as factors are the formed ones, or are not found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import task_gradients
from steelyard.gradients.heads import Factors, factors
from steelyard.gradients.rows import Rows, task_rows

OUTPUTS = (1, 3, 2)


ROWS, WIDTH = 64, 96


def features(dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    return nn.Linear(4, WIDTH, dtype=dtype)(torch.randn(ROWS, 4, dtype=dtype)).tanh()


def linear_heads(dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    z = features(dtype)
    heads = [nn.Linear(WIDTH, outputs, bias=outputs != 2, dtype=dtype) for outputs in OUTPUTS]
    return z, [head(z).square().mean() for head in heads]


def both(dtype: torch.dtype) -> tuple[Factors, Rows]:
    z, losses = linear_heads(dtype)
    found = factors(losses, (z,))
    assert found is not None
    return found, task_rows(["a", "b", "c"], losses, (z,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
class TestFactorsAreTheGradients:
    def test_gramian_and_norms(self, dtype: torch.dtype, tolerance: float) -> None:
        found, rows = both(dtype)
        norms = rows.squared_norms()
        scale = (norms[:, None] * norms).sqrt()
        assert float(((found.gramian() - rows.gramian()) / scale).abs().max()) < tolerance
        assert torch.allclose(found.squared_norms(), norms, rtol=tolerance)

    def test_combinations(self, dtype: torch.dtype, tolerance: float) -> None:
        found, rows = both(dtype)
        for weights in (torch.tensor([0.5, -1.0, 2.0]), torch.tensor([[1.0, 0.0, 0.0], [3.0, 1.0, 0.1]])):
            expected = rows.combine(weights.double())
            assert torch.allclose(found.combine(weights.double()), expected, rtol=tolerance, atol=tolerance)
        (shaped,) = found.shaped(found.combine(torch.ones(3)))
        assert shaped.shape == found.tensors[0].shape

    def test_a_selection_of_tasks(self, dtype: torch.dtype, tolerance: float) -> None:
        found, rows = both(dtype)
        assert torch.allclose(found.select([2, 0]).gramian(), rows.select([2, 0]).gramian(), rtol=1e-4)


def test_outputs_that_cancel_keep_their_precision() -> None:
    """Every row of the softmax head shares a part 100 times larger than the rest, which its gradients cancel."""
    z = features(torch.float32)
    heads = [nn.Linear(WIDTH, 10) for _ in range(3)]
    for head in heads:
        head.weight.data += 10 * torch.randn(WIDTH)
    losses = [nn.functional.cross_entropy(head(z), torch.arange(ROWS) % 10) for head in heads]
    found = factors(losses, (z,))
    assert found is not None
    expected = Factors(found.arriving.double(), found.weights.double(), found.tensors, torch.float32)
    norms = expected.gramian().diagonal()
    error = (found.gramian() - expected.gramian()) / (norms[:, None] * norms).sqrt()
    assert float(error.abs().max()) < 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_any_scale(scale: float) -> None:
    z, losses = linear_heads(torch.float32)
    plain, scaled = factors(losses, (z,)), factors([loss * scale for loss in losses], (z,))
    assert plain is not None
    assert scaled is not None
    assert torch.allclose(scaled.gramian() / scale**2, plain.gramian(), rtol=1e-4)


def read_twice(z: Tensor) -> Tensor:
    return (nn.Linear(WIDTH, 2)(z) + nn.Linear(WIDTH, 2)(z)).square().mean()


def without_a_linear_layer(z: Tensor) -> Tensor:
    return z.square().mean()


def behind_another_layer(z: Tensor) -> Tensor:
    return nn.Linear(WIDTH, 2)(z.relu()).square().mean()


def as_a_weight(z: Tensor) -> Tensor:
    return (torch.ones(3, ROWS) @ z).square().mean()


def with_many_outputs(z: Tensor) -> Tensor:
    return nn.Linear(WIDTH, 500)(z).square().mean()


@pytest.mark.parametrize(
    "head", [read_twice, without_a_linear_layer, behind_another_layer, as_a_weight, with_many_outputs]
)
def test_other_heads_have_their_gradients_formed(head: Callable[[Tensor], Tensor]) -> None:
    z = features(torch.float32)
    losses = {"a": nn.Linear(WIDTH, 2)(z).square().mean(), "b": head(z)}
    assert factors(list(losses.values()), (z,)) is None
    expected = torch.cat([gradient for (gradient,) in task_gradients(losses, [z]).values()]).view(2, -1).double()
    balancer = steelyard.make("mgda", ["a", "b"])
    balancer(losses, shared=z)
    norms = [balancer.metrics()[f"norm/{task}"] for task in ("a", "b")]
    assert norms == pytest.approx(expected.norm(dim=1).tolist(), rel=1e-5)


def test_several_or_sequential_features_are_formed() -> None:
    z = features(torch.float32)
    other = features(torch.float32) * 2
    losses = [nn.Linear(WIDTH, 2)(z).square().mean() + nn.Linear(WIDTH, 2)(other).square().mean() for _ in range(2)]
    assert factors(losses, (z, other)) is None
    sequence = z[None] * 1.0
    assert factors([nn.Linear(WIDTH, 2)(sequence).square().mean()], (sequence,)) is None


def test_half_precision() -> None:
    """bfloat16 factors are multiplied in float32; float16 ones are left to the look that seeds them high."""
    z, losses = linear_heads(torch.bfloat16)
    found = factors(losses, (z,))
    assert found is not None
    assert found.arriving.dtype == torch.float32
    assert torch.allclose(found.gramian(), task_rows(["a", "b", "c"], losses, (z,)).gramian(), rtol=0.02, atol=1e-6)
    z, losses = linear_heads(torch.float16)
    assert factors(losses, (z,)) is None
