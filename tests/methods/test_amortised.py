"""On gradients that stand still the amortised solvers end where the exact ones do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.methods.solvers.bargaining import bargaining_point
from steelyard.methods.solvers.min_norm import min_norm_point
from steelyard.methods.solvers.mirror_descent import LEFT_OUT, bargaining_step, min_norm_step, squared_lengths
from steelyard.methods.solvers.unit_rows import UnitRows

STEPS = 400


def gradients(kind: str, tasks: int) -> Tensor:
    """``J [T, P]`` of a kind that solvers find hard."""
    generator = torch.Generator().manual_seed(tasks)
    J = torch.randn(tasks, 2 * tasks + 10, generator=generator, dtype=torch.float64)
    common = torch.randn(J.shape[1], generator=generator, dtype=torch.float64)
    if kind == "alike":
        return J + common
    if kind == "scales":  # norms 1e6 apart
        return (0.3 * J + common) * torch.logspace(-3, 3, tasks, dtype=torch.float64)[:, None]
    if kind == "tiny":
        return 1e-12 * (J + common)
    assert kind == "opposite"
    return torch.cat([J[:1], -1.1 * J[:1] + 0.1 * J[1:2], J[2:]])


def amortised_min_norm(G: Tensor, power: Tensor, steps: int = STEPS) -> Tensor:
    log_shares = lengths = torch.zeros(len(G), dtype=torch.float64)
    for _ in range(steps):
        share = log_shares.softmax(0)
        weights = share / power
        products = G @ weights
        lengths = squared_lengths(lengths, products, weights @ products)
        log_shares = min_norm_step(log_shares, weights, products, lengths, power, 0.2)
    return log_shares.softmax(0) / power


@pytest.mark.parametrize("tasks", [1, 2, 7, 40, 100])
@pytest.mark.parametrize("kind", ["alike", "scales", "tiny"])
def test_the_least_norm_is_found_to_what_the_left_out_add(kind: str, tasks: int) -> None:
    J = gradients(kind, tasks)
    G = J @ J.T
    weights, best = amortised_min_norm(G, torch.ones(tasks, dtype=torch.float64)), min_norm_point(G)
    squared = float((weights @ G @ weights) / (best @ G @ best))
    added = LEFT_OUT * float((weights * G.diagonal().sqrt()).max() / (best @ G @ best).sqrt())
    assert squared <= 1.01 * (1 + added) ** 2


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_tasks_that_the_least_norm_leaves_out_go_on_learning_a_little(scale: float) -> None:
    J = scale * torch.tensor([[1.0, 0.0], [100.0, 1.0], [50.0, -1.0]], dtype=torch.float64)  # the first is the shortest
    G, power = J @ J.T, torch.tensor([1.0, 1.0, 4.0], dtype=torch.float64)
    assert (min_norm_point(G)[1:] == 0).all()
    adds = amortised_min_norm(G, power) * G.diagonal().sqrt()
    assert torch.allclose(adds[1:] / adds[0], torch.full((2,), LEFT_OUT / 3, dtype=torch.float64), rtol=1e-3)


def test_gradients_that_nearly_cancel_do_not_make_it_oscillate() -> None:
    """Without the curvature it stays at 17 times the least norm."""
    J = gradients("opposite", 7)
    G = J @ J.T
    best = min_norm_point(G)
    least = best @ G @ best
    reached = [amortised_min_norm(G, torch.ones(7, dtype=torch.float64), steps) for steps in (200, 299)]
    assert all(float(weights @ G @ weights) <= 2.0 * float(least) for weights in reached)


def test_a_priority_is_the_share_in_which_a_task_gains() -> None:
    J = gradients("alike", 5)
    power = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.5], dtype=torch.float64)
    weights = amortised_min_norm(J @ J.T, power, 3000)
    gains = (J @ (J.T @ weights)) / power
    assert float(power @ weights) == pytest.approx(1.0)
    inside = weights > 3 * LEFT_OUT / 5 * weights.max()
    assert int(inside.sum()) >= 2
    assert torch.allclose(gains[inside], gains.min(), rtol=0.02)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("tasks", [1, 2, 7, 40])
@pytest.mark.parametrize("kind", ["alike", "scales", "tiny"])
def test_the_bargaining_point_is_found(kind: str, tasks: int, alpha: float) -> None:
    J = gradients(kind, tasks)
    G = J @ J.T
    power = torch.linspace(1, 2, tasks, dtype=torch.float64)
    log_weights = lengths = torch.zeros(tasks, dtype=torch.float64)
    for _ in range(STEPS):
        weights = log_weights.exp()
        products = G @ weights
        lengths = squared_lengths(lengths, products, weights @ products)
        log_weights = bargaining_step(log_weights, weights, products, lengths, power, alpha, 1.0)
    assert torch.allclose(log_weights.exp(), bargaining_point(UnitRows.of(G), power, alpha), rtol=0.02)


def test_a_task_without_gradient_or_power_takes_no_part() -> None:
    G = torch.diag(torch.tensor([4.0, 0.0, 9.0], dtype=torch.float64))
    power = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    log_weights = torch.zeros(3, dtype=torch.float64)
    for _ in range(100):
        weights = log_weights.exp() * (power > 0)
        products = G @ weights
        lengths = squared_lengths(torch.zeros(3), products, weights @ products)
        log_weights = bargaining_step(log_weights, weights, products, lengths, power, 1.0, 1.0)
    assert float(log_weights[0].exp()) == pytest.approx(0.5)
    assert log_weights[1:].tolist() == [0.0, 0.0]


SPECS = {
    "mgda(solver=amortised)": "mgda",
    "nash-mtl(solver=amortised)": "nash-mtl",
    "fairgrad(solver=amortised,alpha=2.0)": "fairgrad(alpha=2.0)",
    "log+mgda(solver=amortised)": "log+mgda",
}


@pytest.mark.parametrize("spec", SPECS)
def test_in_a_loop_it_comes_to_the_exact_weights(spec: str) -> None:
    """The network stands still, by a learning rate of zero: ``attach``, a second forward pass, and nothing else."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, names = torch.randn(12, 5, dtype=torch.float64), ["a", "b", "c"]

    def losses_on(call: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        outputs = call(inputs)
        return {name: 10.0**k * (outputs[:, k] - k).square().mean() for k, name in enumerate(names)}

    exact = steelyard.make(SPECS[spec], names, shared=network[0])
    exact(losses_on(network, inputs)).backward()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    balancer = steelyard.make(spec, names, shared=network[0]).attach(optimizer)
    for _ in range(150):
        optimizer.zero_grad()
        again = steelyard.losses_of(network, losses_on, inputs)
        balancer(losses_on(network, inputs), again=again).backward()
        optimizer.step()
    left_out = 0.0 if "mgda" not in spec else 0.1  # of which what it leaves out takes a little
    assert torch.allclose(
        balancer.last_weights, exact.last_weights, rtol=0.02 + left_out, atol=0.02 * exact.last_weights.max()
    )


def test_famo_before_the_step_learns_what_it_learns_after_a_small_one() -> None:
    """``δ`` of a step of plain SGD is its learning rate times ``⟨∇log L, d⟩``, and Adam asks for no factor."""
    names = ["a", "b", "c"]
    weights = []
    for form in ("before", "after"):
        torch.manual_seed(0)
        network = nn.Linear(4, 3).double()
        inputs = torch.randn(8, 4, dtype=torch.float64)

        def losses_on(call: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
            outputs = call(inputs)
            return {name: (outputs[:, k] - 2.0**k).square().mean() for k, name in enumerate(names)}

        optimizer = torch.optim.SGD(network.parameters(), lr=1e-5)
        balancer = steelyard.make(f"famo(form={form},decay=0)", names).attach(optimizer)
        for _ in range(20):
            optimizer.zero_grad()
            again = steelyard.losses_of(network, losses_on, inputs)
            balancer(losses_on(network, inputs), again=again).backward()
            optimizer.step()
        weights.append(balancer.last_weights)
    assert torch.allclose(*weights, rtol=5e-3)
    assert not torch.allclose(weights[0], torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0.05)


@pytest.mark.parametrize("name", ["mgda", "nash-mtl", "fairgrad"])
def test_beside_a_loss_of_your_own_two_backwards_settle_where_the_exact_solver_does(name: str) -> None:
    """What looks along all of `.grad` does not, as `balance/amortised.md` says."""

    def settled(spec: str, steps: int, **options: str) -> torch.Tensor:
        w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        balancer = steelyard.make(spec, ["a", "b"], heads="weighted", **options)
        optimizer = torch.optim.SGD([w], lr=0.0)
        balancer.attach(optimizer)
        for _ in range(steps):
            optimizer.zero_grad()
            losses = {"a": w[0] + 5, "b": 2 * w[1] + 0.5 * w[0] + 5}
            (balancer(losses, shared=[w]) + (w[0] - w[1])).backward()
            optimizer.step()
        return balancer.last_weights

    torch.testing.assert_close(
        settled(f"{name}(solver=amortised)", 600, product="backward"), settled(name, 2), rtol=0.01, atol=0.01
    )
