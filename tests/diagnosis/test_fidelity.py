"""What a cheap look shows against the exact one, and the alignment score."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.diagnosis.diagnosis import Diagnosis, _from_gramian
from steelyard.diagnosis.fidelity import fidelity


def seen(gramian: Tensor) -> Diagnosis:
    names = tuple("abcd"[: len(gramian)])
    return _from_gramian(names, (), "trunk", torch.ones(len(gramian)).double(), gramian.double())


def gramians(number: int = 5) -> list[Tensor]:
    torch.manual_seed(0)
    return [J @ J.T for J in torch.randn(number, 4, 3).double()]


def test_the_exact_look_is_perfect_at_any_scale() -> None:
    exact = [seen(each) for each in gramians()]
    found = fidelity("last", [seen(1e6 * each) for each in gramians()], exact)
    assert (found.looks, found.wrong_sign) == (5, 0)
    assert found.correlation == pytest.approx(1)
    assert found.norms_off == pytest.approx(0, abs=1e-12)


def test_signs_norms_and_correlation_are_counted() -> None:
    exact = torch.tensor([[1, 0.5, -0.5], [0.5, 1, 0.05], [-0.5, 0.05, 1]])
    turned = torch.tensor([[1, 0.5, 0.5], [0.5, 1, -0.05], [0.5, -0.05, 1]])  # one clear pair of two is wrong
    found = fidelity("features", [seen(turned)], [seen(exact)])
    assert found.wrong_sign == pytest.approx(0.5)
    cosines = torch.tensor([[0.5, 0.5, -0.05], [0.5, -0.5, 0.05]])
    assert found.correlation == pytest.approx(float(torch.corrcoef(cosines)[0, 1]), abs=1e-6)
    blind = fidelity("features", [seen(torch.diag(torch.tensor([1.0, 4.0, 1.0])))], [seen(exact)])
    assert blind.wrong_sign == 1
    assert math.isnan(blind.correlation)
    off = [abs(math.log(ratio) - math.log(2) / 3) for ratio in (1, 2, 1)]
    assert blind.norms_off == pytest.approx(math.expm1(sum(off) / 3))


def test_silent_tasks_and_single_ones_are_left_out() -> None:
    exact = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    found = fidelity("last", [seen(exact)], [seen(exact)])
    assert math.isnan(found.wrong_sign)
    assert math.isnan(found.correlation)


def test_the_alignment_score() -> None:
    opposite = torch.tensor([[1.0, -2.0], [-2.0, 4.0]])
    assert seen(opposite).agreement == pytest.approx(-1)
    assert seen(-opposite.triu(1) - opposite.triu(1).T + torch.diag(opposite.diagonal())).agreement == pytest.approx(1)
    for gramian in gramians():
        inverse = gramian.diagonal().rsqrt()
        length = (gramian * inverse[:, None] * inverse).mean()  # ‖Σ g/‖g‖ / T‖²
        assert seen(gramian).agreement == pytest.approx(float(2 * length - 1))
    silent = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert seen(silent).agreement == pytest.approx(0.6)


def test_diagnose_looks_where_it_is_told() -> None:
    torch.manual_seed(0)
    trunk, heads = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)), nn.ModuleList([nn.Linear(4, 1)] * 2)
    z = trunk(torch.randn(5, 3))
    losses = {"a": heads[0](z).square().mean(), "b": (heads[1](z) - 1).abs().mean()}
    exact = {"last": trunk[2], "trunk": trunk, "layers": trunk[2]}
    for place, module in exact.items():
        expected = steelyard.diagnose(losses, shared=list(module.parameters()))
        found = steelyard.diagnose(losses, shared=z, look=trunk[2] if place == "layers" else place)
        assert torch.allclose(found.norms, expected.norms, rtol=1e-5)
        assert torch.allclose(found.cosines, expected.cosines, rtol=1e-4)
        assert found.place == place
