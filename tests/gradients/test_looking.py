"""Hooks that do more than hand a gradient on can tell a look from the backward pass of the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import steelyard
from cells import every
from steelyard.base.looks import grad
from steelyard.errors import SharedError

TASKS = ("a", "b")


class Network(nn.Module):
    """A trunk and two heads of two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1)) for task in TASKS})
        self.double()

    def losses(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        z = self(x)
        return {task: (head(z) - 3 * k).square().mean() for k, (task, head) in enumerate(self.heads.items())}, z

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)


class Factors:
    """K-FAC's factor of a layer's output gradients, and their sum, which is the gradient of the layer's bias."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.passes = self.looks = 0
        self.factor, self.sum = torch.zeros(layer.out_features, layer.out_features).double(), torch.zeros(()).double()
        layer.register_full_backward_hook(self.add)

    def add(self, module: nn.Module, sent: Any, arrived: tuple[Tensor, ...]) -> None:
        if steelyard.looking():
            self.looks += 1
            return
        self.passes += 1
        self.factor += arrived[0].detach().T @ arrived[0].detach()
        self.sum = self.sum + arrived[0].detach().sum(0)


def watched(network: Network) -> dict[str, Factors]:
    return {"trunk": Factors(network.trunk[2]), "head": Factors(network.heads["a"][0])}


CASES = [
    ("mgda", "features"), ("mgda", "trunk"), ("mgda(heads=plain)", "trunk"), ("pcgrad", "features"),
    ("pcgrad", "trunk"), ("db-mtl", "trunk"), ("moco", "trunk"), ("uw", "ledger"), ("mgda", "ledger"),
    ("hydalearn", "again"), ("auto-lambda", "again"), ("mgda(solver=amortised)", "trunk"),
]  # fmt: skip


AT_PARAMETERS = ("db-mtl", "moco")
"""They replace gradients at the parameters: what passes the layers' outputs is another sum."""


@every(("method", "place"), CASES)
def test_a_hook_that_asks_accumulates_what_the_step_brings(method: str, place: str) -> None:
    network, x = Network(), torch.randn(8, 4).double()
    factors = watched(network)
    balancer = steelyard.make(method, TASKS, **({"main": "a"} if place == "again" else {}))
    if place == "ledger":
        steelyard.Ledger(balancer, torch.optim.SGD(network.parameters(), lr=0.1), every=1)
    losses, z = network.losses(x)

    def once_more(call: Any, batch: Tensor) -> dict[str, Tensor]:
        features = call(batch)
        return {task: head(features).square().mean() for task, head in network.heads.items()}

    again = steelyard.losses_of(network, once_more, x, held_out=x) if place == "again" else None
    balancer(losses, shared=network.trunk if place == "trunk" else z, again=again).backward()
    assert sum(each.looks for each in factors.values()) > 0, "no look that a hook could mistake"
    for each in factors.values():
        assert each.passes == 1
        if method not in AT_PARAMETERS:
            assert torch.allclose(each.sum, each.layer.bias.grad, rtol=1e-12)
    assert not steelyard.looking()


def test_the_factor_is_that_of_the_weighted_sum() -> None:
    network, x = Network(), torch.randn(8, 4).double()
    factors = watched(network)
    balancer = steelyard.make("mgda", TASKS)
    losses, _ = network.losses(x)
    balancer(losses, shared=network.trunk).backward()
    found = {name: each.factor.clone() for name, each in factors.items()}
    for each in factors.values():
        each.factor.zero_()
    losses, _ = network.losses(x)
    sum(weight * loss for weight, loss in zip(balancer.last_weights, losses.values(), strict=True)).backward()
    for name, each in factors.items():
        assert torch.allclose(found[name], each.factor, rtol=1e-10)


def test_looks_within_a_backward_pass_are_looks() -> None:
    """Under ``create_graph=True`` the balanced gradient is formed once more, by passes through the heads."""
    network, x = Network(), torch.randn(8, 4).double()
    factors = watched(network)
    losses, z = network.losses(x)
    result = steelyard.make("mgda(heads=plain)", TASKS)(losses, shared=z)
    looks = factors["head"].looks
    torch.autograd.grad(result, list(network.parameters()), create_graph=True)
    assert factors["head"].looks > looks
    assert [each.passes for each in factors.values()] == [1, 1]


def test_a_look_that_fails_is_over() -> None:
    network, x = Network(), torch.randn(8, 4).double().requires_grad_()
    z = checkpoint(network.trunk, x, use_reentrant=True)
    losses = {task: head(z).square().mean() for task, head in network.heads.items()}
    with pytest.raises(SharedError, match="use_reentrant=False"):
        steelyard.make("mgda", TASKS)(losses, shared=network.trunk)
    with pytest.raises(RuntimeError):
        grad(torch.ones(()), [x])
    assert not steelyard.looking()


def test_every_look_says_that_it_is_one() -> None:
    package = Path(steelyard.__file__).parent
    own = [
        path.relative_to(package).as_posix()
        for room in ("base", "gradients", "balancing", "methods", "diagnosis")
        for path in package.joinpath(room).rglob("*.py")
        if "autograd.grad(" in path.read_text(encoding="utf-8")
    ]
    assert own == ["base/looks.py"]
