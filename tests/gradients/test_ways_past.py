"""A loss that reads the network in front of the features by another way too is warned of where those are redirected."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.errors import SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ("a", "b", "c")


def make(name: str, **options: Any) -> steelyard.Balancer:
    if "main" in options_of(method_class(name)):
        options["main"] = "a"
    return steelyard.make(name, list(TASKS), generator=torch.Generator().manual_seed(0), **options)


AT_FEATURES = [name for name in method_names() if make(name).needs_shared and "features" in method_class(name).where]
REDIRECTED = [name for name in AT_FEATURES if make(name).heads == "plain"]


class Network(nn.Module):
    """Two layers, of which the second makes the features; tied, the first head has the matrix of the first layer."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 4) for task in TASKS})
        self.double()
        if tied:
            self.heads["a"].weight = self.first.weight
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        self.targets = {task: torch.randn(9, 4, generator=generator, dtype=torch.float64) for task in TASKS}

    def forward(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        early = self.first(self.inputs).tanh()
        features = self.second(early).tanh()
        return early, features, {task: head(features) for task, head in self.heads.items()}


def penalty(network: Network, early: Tensor, output: Tensor) -> Tensor:
    return early.square().mean()


def derivative(network: Network, early: Tensor, output: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(output.sum(), network.inputs, create_graph=True)
    return found.square().mean()


def nothing(network: Network, early: Tensor, output: Tensor) -> Tensor:
    return network.inputs.square().mean()  # a leaf in front of everything is no part of the trunk


def called(name: str, way: Callable[..., Tensor], where: str = "features", **options: Any) -> tuple[list[str], float]:
    """What is said in three calls, and how far the trunk's gradient is from that of ``Σ w_k L_k``."""
    balancer, said, off = make(name, **options), [], 0.0
    for _ in range(3):
        network = Network(tied=where == "features")
        early, features, outputs = network()
        losses = {task: (outputs[task] - network.targets[task]).square().mean() for task in TASKS}
        losses["b"] = losses["b"] + way(network, early, outputs["b"])
        trunk = [*network.first.parameters(), *network.second.parameters()]
        shared = trunk if where == "trunk" else features
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = balancer(losses, shared=shared)
        said += [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]
        weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
        joint = sum((weights[task] * losses[task] for task in TASKS), torch.zeros(()))
        expected = torch.autograd.grad(joint, trunk, retain_graph=True)
        found = torch.autograd.grad(result, trunk)
        off = max(off, *(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)))
    return [text for text in said if "by another way too" in text], off


@pytest.mark.parametrize("way", [penalty, derivative])
@every("name", REDIRECTED)
def test_it_is_said_once_by_name(name: str, way: Callable[..., Tensor]) -> None:
    said, _ = called(name, way)
    assert len(said) == 1
    assert "the loss of 'b' reads what lies in front" in said[0]


@pytest.mark.parametrize("name", REDIRECTED)
def test_a_parameter_that_a_head_shares_and_inputs_with_a_graph_are_no_such_way(name: str) -> None:
    assert called(name, nothing)[0] == []


@pytest.mark.parametrize("way", [penalty, derivative])
@pytest.mark.parametrize("name", [name for name in AT_FEATURES if name not in REDIRECTED])
def test_weighted_heads_are_exact_without_a_word(name: str, way: Callable[..., Tensor]) -> None:
    said, off = called(name, way)
    assert said == []
    assert off < 1e-12


def test_the_ways_out_that_are_named() -> None:
    assert called("upgrad", penalty, "trunk")[0] == []
    assert called("upgrad", derivative, "trunk")[1] < 1e-12
    assert called("upgrad", penalty, heads="weighted")[0] == []
    assert called("upgrad", derivative, heads="weighted")[1] < 1e-12


RAW = [
    (name, where)
    for name in method_names()
    for where in ("features", "trunk", "last")
    if make(name).needs_shared
    if where in method_class(name).where or (where == "last" and make(name).reads in ("norms", "gramian"))
]


@every(("name", "where"), RAW)
def test_a_raw_parameter_that_a_head_shares_is_no_such_way_at_any_place(name: str, where: str) -> None:
    """The parameter is the whole trunk, and inputs require grad, as those of another loss may."""
    balancer = make(name)
    parameter = nn.Parameter(torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64))
    heads = {task: nn.Linear(3, 1).double() for task in TASKS}
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[dict[str, Tensor], Tensor]:
        x = torch.randn(9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        features = (x * parameter).tanh()
        losses = {task: (head(features) - 1).square().mean() for task, head in heads.items()}
        losses["b"] = losses["b"] + (features * parameter - x.detach()).square().mean()
        return losses, features

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            losses, features = batch()
            options = {"look": "last"} if where == "last" else {}
            shared = parameter if where == "trunk" else features
            balancer(losses, shared=shared, probes=[batch()[0], batch()[0]], **options).backward()
