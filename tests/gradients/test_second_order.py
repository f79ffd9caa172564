"""``create_graph=True`` through the scalar: weights are constants, all else is differentiated, or it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import steelyard
from cells import every
from helpers import TwoLayer
from steelyard.base.specs import parse_spec
from steelyard.errors import SharedError
from steelyard.method_registry import method_class, method_names, options_of

SCALES = {"a": 1.0, "b": 30.0, "c": 0.1}
PLACES = [
    (name, where)
    for name in method_names()
    for where in ("features", "trunk")
    if where in method_class(name).where and method_class(name).reads not in ("cross_gramian", "lookahead")
]
"""Methods that bring further batches are carried by the same code."""
DIRECTIONS = {
    ("graddrop", "features"),
    *((name, "trunk") for name in ("moco", "adatask", "db-mtl", "max-norm")),
}
"""What they send is no weighted sum of the gradients of this batch."""


def balanced(name: str, where: str, heads: str, net: TwoLayer) -> tuple[Tensor, steelyard.Balancer, dict[str, Tensor]]:
    options = {"main": "a"} if "main" in options_of(method_class(parse_spec(name).name)) else {}
    balancer = steelyard.make(name, list(SCALES), heads=heads, **options)
    losses, features = net.losses()
    return balancer(losses, shared=features if where == "features" else net.trunk), balancer, losses


def second(first: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """The gradient of ``Σ sin(g)``, which weighs every entry of the second derivative differently."""
    total = sum(gradient.sin().sum() for gradient in first)
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(total, parameters, retain_graph=True)])


@pytest.mark.parametrize("heads", ["plain", "weighted"])
@every(("name", "where"), PLACES)
def test_exact_or_refused(name: str, where: str, heads: str) -> None:
    net = TwoLayer(SCALES)
    scalar, balancer, losses = balanced(name, where, heads, net)
    trunk, own = net.trunk_parameters(), net.head_parameters()
    if (name, where) in DIRECTIONS:
        with pytest.raises(SharedError, match=rf"{name} sends a direction of its own .*create_graph=True"):
            torch.autograd.grad(scalar, trunk, create_graph=True)
        return
    first = list(torch.autograd.grad(scalar, trunk + own, create_graph=True))

    weights = balancer.last_weights
    # A loss in front of the method multiplies plain heads by its slope: taken from what they received.
    on_heads = (
        weights
        if heads == "weighted"
        else torch.stack(
            [
                (first[len(trunk) + 2 * k] / torch.autograd.grad(loss, own[2 * k], retain_graph=True)[0])
                .mean()
                .detach()
                for k, loss in enumerate(losses.values())
            ]
        )
    )
    at_trunk, at_heads = (
        torch.autograd.grad(
            sum(by * loss for by, loss in zip(multipliers, losses.values(), strict=True)), parameters, create_graph=True
        )
        for multipliers, parameters in ((weights, trunk), (on_heads, own))
    )
    expected = [*at_trunk, *at_heads]
    for one, other in zip(first, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12 * float(other.detach().abs().max()))
    wanted = second(expected, trunk + own)
    assert float((second(first, trunk + own) - wanted).norm() / wanted.norm()) < 1e-9


@pytest.mark.parametrize("where", ["features", "trunk"])
def test_a_gradient_penalty_beside_the_balanced_losses(where: str) -> None:
    """``(scalar + penalty).backward()``: the penalty passes where the gradient is replaced, and is kept."""
    net = TwoLayer(SCALES)
    scalar, balancer, losses = balanced("mgda(normalise=l2)", where, "plain", net)
    trunk = net.trunk_parameters()
    first = torch.autograd.grad(scalar, trunk, create_graph=True)
    penalty = sum(gradient.square().sum() for gradient in first)
    weighted = sum(w * loss for w, loss in zip(balancer.last_weights, losses.values(), strict=True))
    exact = sum(g.square().sum() for g in torch.autograd.grad(weighted, trunk, create_graph=True))
    expected = torch.autograd.grad(weighted + exact, trunk, retain_graph=True)
    (scalar + penalty).backward()
    for parameter, gradient in zip(trunk, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9)


def test_a_loss_beside_the_balancer_is_differentiated_too() -> None:
    net = TwoLayer(SCALES)
    losses, z = net.losses()
    balancer = steelyard.make("mgda(normalise=l2)", list(SCALES), heads="plain")
    own = z.exp().mean()
    trunk = net.trunk_parameters()
    first = list(torch.autograd.grad(balancer(losses, shared=z) + own, trunk, create_graph=True))
    weighted = sum(w * loss for w, loss in zip(balancer.last_weights, losses.values(), strict=True))
    expected = list(torch.autograd.grad(weighted + own, trunk, create_graph=True))
    wanted = second(expected, trunk)
    assert float((second(first, trunk) - wanted).norm() / wanted.norm()) < 1e-9


def test_float32() -> None:
    net = TwoLayer(SCALES, torch.float32)
    scalar, balancer, _ = balanced("mgda(normalise=l2)", "features", "plain", net)
    found = second(list(torch.autograd.grad(scalar, net.trunk_parameters(), create_graph=True)), net.trunk_parameters())
    twin = net.in_double()
    losses, _ = twin.losses()
    weighted = sum(w * loss for w, loss in zip(balancer.last_weights, losses.values(), strict=True))
    trunk = twin.trunk_parameters()
    wanted = second(list(torch.autograd.grad(weighted, trunk, create_graph=True)), trunk)
    assert float((found.double() - wanted).norm() / wanted.norm()) < 1e-5


def test_several_depths_are_refused() -> None:
    net = TwoLayer(SCALES)
    losses, z = net.losses()
    losses["a"] = z.square().mean()
    scalar = steelyard.make("mgda", list(SCALES), heads="plain")(losses, shared=net.trunk)
    with pytest.raises(SharedError, match=r"at several depths, cannot be differentiated twice \(create_graph=True\)"):
        torch.autograd.grad(scalar, net.trunk_parameters(), create_graph=True)
