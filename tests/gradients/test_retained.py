"""`retain_grad()`: a look leaves no gradient behind where the user wants that of the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import steelyard
from cells import every
from steelyard.errors import SharedError
from steelyard.gradients.retained import retaining_below

TASKS = ("a", "b")
SEEN = hasattr(torch._C._autograd.SavedTensor, "unpack_hook")
"""Whether torch tells that unpacking what a node saved would run a hook; else nothing is looked for in the graph."""


class Network(nn.Module):
    """A trunk over rows, or over sequences of them, and a head for each task, linear or deep."""

    def __init__(self, deep: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)) if deep else nn.Linear(6, 2)
                for task in TASKS
            }
        )
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)

    def losses_at(self, z: Tensor) -> dict[str, Tensor]:
        return {task: (head(z) - 2 * k).square().mean() for k, (task, head) in enumerate(self.heads.items())}


def arriving(network: Network, x: Tensor, weights: Tensor) -> Tensor:
    """What the weighted sum sends to the features, by plain autograd."""
    z = network(x)
    total = sum(weight * loss for weight, loss in zip(weights, network.losses_at(z).values(), strict=True))
    return torch.autograd.grad(total, z)[0]


CASES = [
    ("mgda", {}, "features"), ("pcgrad", {}, "features"), ("inverse-norm", {}, "features"), ("uw", {}, "features"),
    ("mgda", {"look": "last"}, "features"), ("mgda", {"look": "trunk"}, "features"), ("mgda", {}, "trunk"),
    ("pcgrad", {}, "trunk"), ("inverse-norm", {}, "trunk"), ("mgda(solver=amortised)", {}, "features"),
    ("hydalearn", {"main": "a"}, "features"),
]  # fmt: skip


@every("shape", [(5,), (3, 2)], ids=str)
@every("deep", [False, True])
@every("ledger", [False, True])
@every(("method", "options", "place"), CASES, ids=str)
def test_what_is_retained_is_that_of_the_step(
    method: str, options: dict[str, Any], place: str, ledger: bool, deep: bool, shape: tuple[int, ...]
) -> None:
    if place == "trunk" and not SEEN:
        pytest.skip("this torch does not show what nodes saved")
    network, x = Network(deep), torch.randn(*shape, 4).double()
    balancer = steelyard.make(method, TASKS, **options)
    if ledger:
        steelyard.Ledger(balancer, torch.optim.SGD(network.parameters(), lr=0.1), every=1)
    z = network(x)
    z.retain_grad()
    again = steelyard.losses_of(network, lambda call, x: network.losses_at(call(x)), x)
    result = balancer(network.losses_at(z), shared=z if place == "features" else network.trunk, again=again)
    assert z.grad is None
    result.backward()
    assert torch.allclose(z.grad, arriving(network, x, balancer.last_weights), rtol=1e-9)


def test_a_gradient_that_was_there_stays() -> None:
    network, x = Network(deep=True), torch.randn(5, 4).double()
    z = network(x)
    z.retain_grad()
    z.sum().backward(retain_graph=True)
    balancer = steelyard.make("mgda", TASKS)
    result = balancer(network.losses_at(z), shared=z)
    assert torch.equal(z.grad, torch.ones_like(z))
    result.backward()
    assert torch.allclose(z.grad, 1 + arriving(network, x, balancer.last_weights))


@pytest.mark.parametrize("create_graph", [False, True])
def test_plain_heads(create_graph: bool) -> None:
    """With ``create_graph`` the balanced gradient is formed anew within the backward pass."""
    network, x = Network(deep=True), torch.randn(5, 4).double()
    z = network(x)
    z.retain_grad()
    balancer = steelyard.make("mgda", TASKS, heads="plain")
    balancer(network.losses_at(z), shared=z).backward(create_graph=create_graph)
    assert torch.allclose(z.grad, arriving(network, x, balancer.last_weights))


@pytest.mark.skipif(not SEEN, reason="this torch does not show what nodes saved")
def test_heads_at_several_depths() -> None:
    network, x = Network(), torch.randn(5, 4).double()
    middle = network.trunk[:2](x)
    middle.retain_grad()
    z = network.trunk[2:](middle)
    z.retain_grad()
    losses = {**network.losses_at(z), "middle": nn.Linear(6, 1).double()(middle).square().mean()}
    result = steelyard.make("mgda", list(losses), heads="plain")(losses, shared=network.trunk)
    assert z.grad is None
    assert middle.grad is None
    result.backward()


def test_a_look_that_fails_leaves_nothing() -> None:
    network, x = Network(), torch.randn(5, 4).double()
    z = network(x)
    z.retain_grad()
    losses = {**network.losses_at(z), "b": network.losses_at(z)["b"] * 1e200 * 1e200}
    with pytest.raises(FloatingPointError):
        steelyard.make("mgda", TASKS, on_nonfinite="raise")(losses, shared=z)
    bad = (z * 0).sqrt().sum()
    with pytest.raises(FloatingPointError, match="gradient"):
        steelyard.make("mgda", TASKS)({**network.losses_at(z), "b": bad}, shared=z)
    assert z.grad is None


def test_a_diagnosis_leaves_nothing() -> None:
    network, x = Network(deep=True), torch.randn(5, 4).double()
    z = network(x)
    z.retain_grad()
    steelyard.diagnose(network.losses_at(z), shared=z)
    assert z.grad is None


def test_after_the_balancer_every_activation_is_exact() -> None:
    """What no operation saves cannot be found: a sum reads it, or it lies in a head in front of which a look begins."""
    network, x = Network(), torch.randn(5, 4).double()
    z = network(x)
    shifted = z + 1
    balancer = steelyard.make("mgda", TASKS)
    result = balancer({task: (loss + shifted.mean()) for task, loss in network.losses_at(z).items()}, shared=z)
    shifted.retain_grad()
    result.backward()
    expected = torch.full_like(z, float(balancer.last_weights.sum()) / z.numel())
    assert torch.allclose(shifted.grad, expected)


@pytest.mark.skipif(not SEEN, reason="this torch does not show what nodes saved")
def test_checkpointed_blocks_are_not_run_for_it() -> None:
    runs: list[int] = []

    def block(z: Tensor) -> Tensor:
        runs.append(1)
        return functional.gelu(z).square()

    x = torch.randn(5, 4, requires_grad=True)
    z = torch.utils.checkpoint.checkpoint(block, x * 2, use_reentrant=False)
    assert retaining_below([z.sum()]) == []
    assert len(runs) == 1


def test_shared_of_any_kind_is_left_alone() -> None:
    """An iterator is read once, by who needs it."""
    network, x = Network(), torch.randn(5, 4).double()
    for shared in (network.trunk.parameters(), [network.trunk], (network.trunk[0], network.trunk[2])):
        steelyard.make("mgda", TASKS)(network.losses_at(network(x)), shared=shared).backward()
    with pytest.raises(SharedError, match="dict"):
        steelyard.make("mgda", TASKS)(network.losses_at(network(x)), shared={"z": x})
