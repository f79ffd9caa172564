"""Faults once found by reading: each stays mended."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import TwoLayer, task_gradients, weighted_sum
from steelyard.gradients.trunk import trunk_gradients

TASKS = {"a": 1.0, "b": 3.0}


@pytest.mark.parametrize("spec", ["db-mtl", "max-norm", "moco"])
def test_directions_at_the_trunk_follow_priorities_and_caps(spec: str) -> None:
    network = TwoLayer(TASKS)

    def arriving(**options) -> Tensor:
        balancer = steelyard.make(spec, list(TASKS), **options)
        gradients = torch.autograd.grad(balancer(network.losses()[0], shared=network.trunk), network.trunk_parameters())
        return torch.cat([gradient.flatten() for gradient in gradients])

    losses, _ = network.losses()
    of_a = torch.cat([g.flatten() for g in task_gradients(losses, network.trunk_parameters())["a"]])
    alone = arriving(priorities={"b": 0.0})
    assert nn.functional.cosine_similarity(alone, of_a, dim=0).item() == pytest.approx(1, abs=1e-6)
    assert float(arriving(cap=0.01).norm()) < 0.1 * float(arriving().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_call_inside_autocast_keeps_its_precision(dtype: torch.dtype) -> None:
    network = TwoLayer(TASKS, torch.float32)
    found = []
    for inside in (False, True):
        losses, features = network.losses()
        balancer = steelyard.make("mgda", list(TASKS), heads="plain")
        with torch.autocast("cpu", dtype=dtype, enabled=inside):
            loss = balancer({task: 1e-4 * value for task, value in losses.items()}, shared=features)
        found.append(torch.autograd.grad(loss, network.trunk_parameters()))
    for plain, autocast in zip(*found, strict=True):
        assert torch.allclose(plain, autocast, rtol=1e-5)


@pytest.mark.parametrize("policy", ["skip_step", "drop_task"])
def test_nothing_moves_where_a_finite_loss_has_no_finite_gradient(policy: str) -> None:
    layer = nn.Linear(3, 3)
    z = layer(torch.randn(4, 3))
    broken = (z * 0).sum().sqrt()  # value 0, gradient NaN
    balancer = steelyard.make("mgda", ["a", "b"], on_nonfinite=policy)
    losses = {"a": broken, "b": broken * 2} if policy == "drop_task" else {"a": z.square().mean(), "b": broken}
    balancer(losses, shared=z).backward()
    assert layer.weight.grad is None or float(layer.weight.grad.abs().max()) == 0


def test_float16_features_with_large_gradients() -> None:
    features = torch.randn(8, 4).half().requires_grad_()
    losses = {"a": (features.float() * 1000).sum(), "b": features.float().square().sum()}
    balancer = steelyard.make("inverse-norm", ["a", "b"])
    balancer(losses, shared=features)
    assert balancer.metrics()["norm/a"] == pytest.approx(1000 * 32**0.5, rel=1e-3)


def test_the_same_tensor_given_twice() -> None:
    network = TwoLayer(TASKS)
    losses, features = network.losses()
    gradients = task_gradients(losses, network.trunk_parameters())
    balancer = steelyard.make("max-norm", list(TASKS))
    balancer(losses, shared=[features, features]).backward()
    weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
    for parameter, expected in zip(network.trunk_parameters(), weighted_sum(weights, gradients), strict=True):
        assert torch.allclose(parameter.grad, expected, rtol=1e-9)


def gramian_of_jacobian(losses: list[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    rows = task_gradients({str(k): loss for k, loss in enumerate(losses)}, parameters)
    J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows.values()])
    return J @ J.T


def test_a_weight_that_is_multiplied_by_itself() -> None:
    layer = nn.Linear(64, 8, bias=False).double()
    x = torch.randn(4, 64).double()
    orthogonal = (layer.weight @ layer.weight.t() - torch.eye(8)).square().sum()
    losses = [layer(x).square().mean(), orthogonal]
    found = trunk_gradients(["fit", "orthogonal"], losses, list(layer.parameters()), at_boundary=False).gramian
    assert torch.allclose(found, gramian_of_jacobian(losses, list(layer.parameters())), rtol=1e-9)


@pytest.mark.parametrize("shape", [(1,), (4, 8)])
def test_a_bias_of_another_shape(shape: tuple[int, ...]) -> None:
    weight, bias = nn.Parameter(torch.randn(8, 64).double()), nn.Parameter(torch.randn(shape).double())
    z = torch.addmm(bias, torch.randn(4, 64).double(), weight.t())
    losses = [z.square().mean(), z.abs().mean()]
    found = trunk_gradients(["a", "b"], losses, [weight, bias], at_boundary=False).gramian
    assert torch.allclose(found, gramian_of_jacobian(losses, [weight, bias]), rtol=1e-9)


def test_a_closure_that_raises_ends_the_step() -> None:
    network = TwoLayer(TASKS)
    optimizer = torch.optim.LBFGS(network.trunk_parameters())
    balancer = steelyard.make("ema", list(TASKS)).attach(optimizer)

    def closure() -> Tensor:
        balancer({"a": network.losses()[0]["a"]})
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        optimizer.step(closure)
    balancer(network.losses()[0])
    assert float(balancer.last_weights.min()) > 0


def test_a_backward_that_stops_at_the_heads_leaves_nothing_behind() -> None:
    network = TwoLayer(TASKS)
    losses, features = network.losses()
    loss = steelyard.make("max-norm", list(TASKS))(losses, shared=features)
    torch.autograd.grad(loss, network.head_parameters(), retain_graph=True)
    other = torch.autograd.grad(losses["a"], network.trunk_parameters(), retain_graph=True)
    expected = task_gradients(network.losses()[0], network.trunk_parameters())["a"]
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(other, expected, strict=True))


def test_weights_held_for_a_task_that_was_absent_when_they_were_made() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("ema", list(TASKS), every=3)
    losses = network.losses()[0]
    balancer({"a": losses["a"]})
    balancer(losses)
    held = balancer.last_weights
    assert float(held[1]) == pytest.approx(float(held[0])), "the mean of the weights that are held"


def test_counts_of_an_unknown_task() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("equal", list(TASKS)).attach(torch.optim.SGD(network.trunk_parameters(), lr=0.1))
    with pytest.raises(steelyard.errors.UnknownNameError, match=r"unknown task 'typo'.*counts="):
        balancer(network.losses()[0], counts={"typo": 3})
