"""Agreement with torchjd where torchjd is right, and where it is not: small gradients, unequal norms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import steelyard
from steelyard.base.observation import Seen

aggregation = pytest.importorskip("torchjd.aggregation", reason="torchjd is not installed")
pytest.importorskip("qpsolvers", reason="torchjd's projections need qpsolvers")


def ours(spec: str, J: Tensor) -> Tensor:
    """The direction that a method makes of explicit rows."""
    tasks = [f"task{number}" for number in range(len(J))]
    balancer = steelyard.make(spec, tasks)
    gramian, ones = J @ J.T, torch.ones(len(J), dtype=torch.float64)
    answer = balancer.weigh(Seen(tuple(tasks), ones, ones, gramian.diagonal(), gramian), balancer.working_state())
    weights = answer if isinstance(answer, Tensor) else answer.weights
    return weights @ J


def matrices(tasks: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tasks)
    return [torch.randn(tasks, 12, generator=generator, dtype=torch.float64) for _ in range(5)]


@pytest.mark.parametrize("tasks", [2, 3, 6])
@pytest.mark.parametrize(
    ("spec", "theirs", "tolerance"),
    [
        # torchjd regularises its projections by 1e-4 of the Gramian, and its Frank-Wolfe stops above the smallest norm.
        ("upgrad", lambda: aggregation.UPGrad(), 5e-3),
        ("dualproj", lambda: aggregation.DualProj(), 1e-3),
        ("mgda", lambda: aggregation.MGDA(epsilon=1e-12, max_iters=10_000), 1e-2),
        ("imtl-g", lambda: aggregation.IMTLG(), 1e-9),
        ("config", lambda: aggregation.ConFIG(), 1e-9),
    ],
)
def test_agreement(spec: str, theirs, tolerance: float, tasks: int) -> None:
    for J in matrices(tasks):
        expected = theirs()(J)
        assert float((ours(spec, J) - expected).norm() / expected.norm()) < tolerance


def test_aligned_mtl_agrees_up_to_the_mean() -> None:
    """torchjd averages the aligned rows where the paper and the authors' code add them."""
    for J in matrices(4):
        assert torch.allclose(ours("aligned-mtl", J), 4 * aggregation.AlignedMTL()(J), rtol=1e-8)


def test_small_gradients_change_their_direction_in_torchjd_and_not_here() -> None:
    """An absolute threshold turns UPGrad into the plain mean once the Jacobian is small."""
    J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    theirs, mean = aggregation.UPGrad(), J.mean(0)
    assert not torch.allclose(theirs(J), mean, rtol=0.1)
    assert torch.allclose(theirs(1e-6 * J) / 1e-6, mean, rtol=1e-2)
    assert torch.allclose(ours("upgrad", 1e-6 * J) / 1e-6, ours("upgrad", J), rtol=1e-9)


def test_unequal_norms_conflict_in_torchjd_and_not_here() -> None:
    torch.manual_seed(0)
    J = torch.randn(3, 8, dtype=torch.float64) * torch.tensor([[1.0], [100.0], [1.0]])
    for direction, conflicts in ((aggregation.UPGrad()(J), True), (ours("upgrad", J), False)):
        cosines = J @ direction / J.norm(dim=1) / direction.norm()
        assert (float(cosines.min()) < -1e-3) is conflicts
