"""FairGrad: its equations at several α, Nash-MTL at α = 1."""

from __future__ import annotations

import pytest
import torch

import steelyard
from gramian_cases import balancer, random_rows, weigh


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 40])
def test_it_solves_its_equations(tasks: int, alpha: float) -> None:
    for conflict, ratio in ((0.0, 10.0), (1.0, 10.0), (2.0, 1.0)):
        rows = random_rows(tasks, 200, tasks, ratio, conflict)
        weights = weigh(balancer("fairgrad", tasks, alpha=alpha), rows)
        assert float(weights.min()) > 0
        assert torch.allclose(rows @ (weights @ rows), weights ** (-1 / alpha), rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_norm_ratios_of_a_million(alpha: float) -> None:
    rows = random_rows(10, 200, 0, 1e6)
    weights = weigh(balancer("fairgrad", 10, alpha=alpha), rows)
    assert torch.allclose(rows @ (weights @ rows), weights ** (-1 / alpha), rtol=1e-8)


def test_alpha_of_one_is_nash() -> None:
    rows = random_rows(5, 30, 2, 1e3, 1.5)
    assert torch.allclose(weigh(balancer("fairgrad", 5), rows), weigh(balancer("nash-mtl", 5), rows), rtol=1e-12)


def test_a_large_alpha_evens_out_the_gains() -> None:
    rows = random_rows(4, 30, 2, 30.0)

    def spread(alpha: float) -> float:
        gains = rows @ (weigh(balancer("fairgrad", 4, alpha=alpha), rows) @ rows)
        return float(gains.max() / gains.min())

    spreads = [spread(alpha) for alpha in (0.5, 1.0, 2.0, 10.0, 50.0)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 1.2


def test_priorities_and_zero_gradients() -> None:
    rows = torch.cat([random_rows(2, 20, 0), torch.zeros(1, 20, dtype=torch.float64)])
    weights = weigh(balancer("fairgrad", 3, alpha=2.0, priorities={"0": 5.0}), rows)
    gains = rows @ (weights @ rows)
    assert torch.allclose(gains[:2] * weights[:2] ** 0.5, torch.tensor([5.0, 1.0], dtype=torch.float64), rtol=1e-9)
    assert float(weights[2]) == 1


def test_heads_are_plain_as_in_the_authors_code_but_where_the_solver_is_amortised():
    """Its weights are learnt from one product, and plain heads would cost a pass through each."""
    heads = [steelyard.make(spec, ["a", "b"]).heads for spec in ("fairgrad", "fairgrad(solver=amortised)")]
    assert heads == ["plain", "weighted"]
    assert steelyard.make("fairgrad(heads=weighted)", ["a", "b"]).heads == "weighted"
    assert steelyard.make("fairgrad(heads=plain,solver=amortised)", ["a", "b"]).heads == "plain"
