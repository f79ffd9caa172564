"""GradDrop, MoCo and ExcessMTL against readable references on explicit rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import steelyard
from helpers import TwoLayer, task_gradients

TASKS = {"a": 1.0, "b": 40.0, "c": 0.3}


def rows_at_trunk(network: TwoLayer) -> tuple[dict[str, Tensor], Tensor]:
    losses, _ = network.losses()
    gradients = task_gradients(losses, network.trunk_parameters())
    return losses, torch.stack([torch.cat([piece.flatten() for piece in row]) for row in gradients.values()])


def arrived(network: TwoLayer, loss: Tensor) -> Tensor:
    gradients = torch.autograd.grad(loss, network.trunk_parameters())
    return torch.cat([gradient.flatten() for gradient in gradients])


def moved(network: TwoLayer, direction: Tensor, rate: float = 0.01) -> None:
    start = 0
    for parameter in network.trunk_parameters():
        parameter.data -= rate * direction[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()


def test_moco() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("moco(beta=0.5,gamma=0.1,rho=0.2)", list(TASKS))
    y, weights = None, torch.full((3,), 1 / 3, dtype=torch.float64)
    for step in range(1, 6):
        losses, J = rows_at_trunk(network)
        unit = torch.stack([loss.detach() * row / row.norm() for loss, row in zip(losses.values(), J, strict=True)])
        y = torch.zeros_like(J) if y is None else y
        y = y - 0.5 / step**0.5 * (y - unit)
        weights = torch.softmax(weights - 0.1 / step**0.5 * (y @ y.T + 0.2 * torch.eye(3)) @ weights, 0)
        direction = arrived(network, balancer(losses, shared=network.trunk))
        assert float((direction - weights @ y).norm() / (weights @ y).norm()) < 1e-6, "y is kept in float32"
        moved(network, direction)


@pytest.mark.parametrize("spec", ["moco", "log+moco"])
def test_moco_descends_losses_below_zero(spec: str) -> None:
    w = torch.nn.Parameter(torch.full((2,), 0.1, dtype=torch.float64))
    balancer = steelyard.make(spec, ["a", "b"], shared=[w])
    below = 0.0 if spec == "log+moco" else 2.0  # logarithms of losses below 1 are negative by themselves
    balancer({"a": w[0].square() - below, "b": (w[1] * 3).square() - below}).backward()
    assert (w.grad > 0).all()


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-12, 1e12])
def test_moco_knows_directions_whatever_the_size_of_gradients(size: float) -> None:
    """It takes them at the length of their losses, so all of these are one problem; at 1e-40 to some digits only."""
    rows = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    found = []
    for scale in (1.0, size):
        trunk = torch.nn.Parameter(torch.zeros(20))
        losses = {task: (scale * rows[k]) @ trunk + k + 1 for k, task in enumerate(TASKS)}
        (direction,) = torch.autograd.grad(steelyard.make("moco", list(TASKS))(losses, shared=[trunk]), trunk)
        found.append(direction)
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_excess_mtl() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("excess-mtl(eta=0.3)", list(TASKS))
    squares, first, weights = None, None, torch.ones(3).double()
    for _ in range(5):
        losses, J = rows_at_trunk(network)
        squares = J**2 if squares is None else squares + J**2
        risk = torch.stack([(row / (h + 1e-7).sqrt()) @ row for row, h in zip(J, squares, strict=True)])
        first = risk if first is None else first
        weights = weights * torch.exp(0.3 * risk / first)
        weights = 3 * weights / weights.sum()
        direction = arrived(network, balancer(losses, shared=network.trunk))
        assert torch.allclose(balancer.last_weights, weights, rtol=1e-5)
        moved(network, direction)


def graddrop_reference(z: Tensor, gradients: list[Tensor], drawn: Tensor, leak: float) -> Tensor:
    """Element by element, as Algorithm 1 says."""
    votes = [(z.sign() * gradient).sum(0) for gradient in gradients]
    direction = torch.zeros_like(z)
    for j in range(z.shape[1]):
        purity = 0.5 * (1 + sum(v[j] for v in votes) / sum(abs(v[j]) for v in votes))
        for vote, gradient in zip(votes, gradients, strict=True):
            passes = vote[j] > 0 if purity > drawn[j] else vote[j] < 0
            direction[:, j] += (leak + (1 - leak) * float(passes)) * gradient[:, j]
    return direction


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
def test_graddrop(leak: float) -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("graddrop", list(TASKS), leak=leak, generator=torch.Generator().manual_seed(5))
    twin = torch.Generator().manual_seed(5)
    for _ in range(3):
        losses, features = network.losses()
        gradients = [rows[0] for rows in task_gradients(losses, [features]).values()]  # type: ignore[list-item]
        drawn = torch.rand(features.shape[1], generator=twin).double()
        expected = graddrop_reference(features.detach(), gradients, drawn, leak)
        seen: list[Tensor] = []
        result = balancer(losses, shared=features)
        features.register_hook(seen.append)
        result.backward()
        assert torch.allclose(seen[0], expected, rtol=1e-9, atol=1e-12)


def probe_losses(network: TwoLayer, part: slice) -> dict[str, Tensor]:
    features = network.trunk(network.inputs[part])
    return {
        task: scale * (network.heads[task](features) - network.targets[task][part]).square().mean()
        for task, scale in TASKS.items()
    }


def rows_of(network: TwoLayer, losses: dict[str, Tensor]) -> Tensor:
    gradients = task_gradients(losses, network.trunk_parameters())
    return torch.stack([torch.cat([piece.flatten() for piece in row]) for row in gradients.values()])


def nearest_on_simplex(point: Tensor) -> Tensor:
    """By bisection on the threshold, independent of the solver's sorting."""
    low, high = float(point.min()) - 1, float(point.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((point - middle).clamp(min=0).sum()) > 1 else (low, middle)
    return (point - high).clamp(min=0)


@pytest.mark.parametrize(("eta", "steps"), [(10.0, 20), (0.02, 3)])  # the defaults; so few that the start still shows
def test_sdmgrad(eta: float, steps: int) -> None:
    """The inner loop is its authors': their SGD on weights that it keeps from step to step."""
    network = TwoLayer(TASKS)
    options = "" if steps == 20 else f",eta={eta},steps={steps}"
    balancer = steelyard.make(f"sdmgrad(lam=0.3{options})", list(TASKS))
    w = torch.full((3,), 1 / 3, dtype=torch.float64).requires_grad_()
    for _ in range(3):
        probes = [probe_losses(network, part) for part in (slice(0, 8), slice(8, 16))]
        A = rows_of(network, probes[0]) @ rows_of(network, probes[1]).T
        A = A / A.diagonal().clamp(min=0).sqrt().mean() ** 2
        optimizer = torch.optim.SGD([w], lr=eta, momentum=0.5)
        for _ in range(steps):
            w.grad = A @ w.detach() + 0.3 * A.mean(1)
            optimizer.step()
            w.data = nearest_on_simplex(w.data)
        expected = (w.detach() + 0.3 / 3) / 1.3
        losses, _ = network.losses()
        direction = arrived(network, balancer(losses, shared=network.trunk, probes=probes))
        assert torch.allclose(balancer.last_weights, expected, rtol=1e-8, atol=1e-10)
        moved(network, direction, 0.1)


@pytest.mark.parametrize("spec", ["sdmgrad(lam=0)", "modo(gamma=10)"])
def test_tasks_that_are_left_without_a_share_begin_alike(spec: str) -> None:
    """One task holds all of the simplex; in a step without it, the others have nothing to be scaled to one."""
    network = TwoLayer(TASKS)
    balancer = steelyard.make(spec, list(TASKS))
    balancer.shares.copy_(torch.tensor([1.0, 0.0, 0.0]))
    losses, _ = network.losses()
    probes = [probe_losses(network, part) for part in (slice(0, 8), slice(8, 16))]
    rest = [{task: given[task] for task in ("b", "c")} for given in (losses, *probes)]
    balancer(rest[0], shared=network.trunk, probes=rest[1:])
    assert balancer.last_weights.sum().item() == pytest.approx(1)


def test_modo() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("modo(gamma=0.01,rho=0.1)", list(TASKS))
    w = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(3):
        probes = [probe_losses(network, part) for part in (slice(0, 8), slice(8, 16))]
        A = rows_of(network, probes[0]) @ rows_of(network, probes[1]).T
        w = nearest_on_simplex(w - 0.01 * (A + 0.1 * torch.eye(3).double()) @ w)
        losses, _ = network.losses()
        J = rows_of(network, losses)
        direction = arrived(network, balancer(losses, shared=network.trunk, probes=probes))
        assert torch.allclose(direction, w @ J, rtol=1e-9, atol=1e-12)
        moved(network, direction)


def test_probes_that_are_missing_or_lack_a_task() -> None:
    network = TwoLayer(TASKS)
    losses, _ = network.losses()
    with pytest.raises(steelyard.errors.MissingInputError, match=r"probes=\[losses_1, losses_2\], got none"):
        steelyard.make("modo", list(TASKS))(losses, shared=network.trunk)
    with pytest.raises(steelyard.errors.MissingInputError, match=r"probes\[1\] lacks the task 'b'"):
        steelyard.make("modo", list(TASKS))(losses, shared=network.trunk, probes=[losses, {"a": losses["a"]}])


def test_lr_annealing() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("lr-annealing(main=a,beta=0.9)", list(TASKS))
    average: dict[str, float] = {}
    for _ in range(4):
        losses, J = rows_at_trunk(network)
        for task, row in zip(TASKS, J, strict=True):
            ratio = float(J[0].abs().max() / row.abs().mean())
            average[task] = 0.9 * average.get(task, ratio) + 0.1 * ratio
        direction = arrived(network, balancer(losses, shared=network.trunk))
        expected = [1.0, average["b"], average["c"]]
        assert balancer.last_weights.tolist() == pytest.approx(expected, rel=1e-9)
        moved(network, direction, 1e-4)


def test_excess_mtl_waits_for_the_first_gradient() -> None:
    """A head that starts at zero sends the trunk nothing at first; from its first gradient on it counts."""
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = steelyard.make("excess-mtl(eta=1)", ["a", "b"], shared=[w])
    for slope in (0.0, 1.0, 1.0):
        balancer({"a": w[0], "b": slope * w[1] + 1})
    assert bool((balancer.first_risk > 0).all())
    ahead = float(balancer.log_weights[0] - balancer.log_weights[1])
    assert ahead == pytest.approx((1 + 2**-0.5 + 3**-0.5) - (1 + 2**-0.5), rel=1e-6)


def test_graddrop_draws_anew_in_the_step_after_one_of_several_micro_batches() -> None:
    """Not the same numbers, moved on by one."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    balancer = steelyard.make("graddrop", ["a", "b"], generator=generator).attach(optimizer)
    opposed = torch.stack([torch.ones(400), -torch.ones(400)])

    def passes() -> str:
        """Of two tasks that disagree everywhere, whose gradients pass."""
        features = (weight * torch.ones(1, 400)).requires_grad_()
        features.retain_grad()
        balancer(dict(zip("ab", opposed @ features[0], strict=True)), shared=features).backward()
        assert features.grad is not None
        return "".join("+" if sign > 0 else "-" for sign in features.grad[0])

    found = []
    for _ in range(2):
        parts = [passes(), passes()]
        assert parts[0] == parts[1]  # one draw for the batch, of which these are parts
        found.append(parts[0])
        optimizer.step()
    first, second = found
    assert not any(first[shift:][:300] == second[:300] or second[shift:][:300] == first[:300] for shift in range(50))
