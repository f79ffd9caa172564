"""Leaves that are no `nn.Parameter`: weights of heads, which stay plain, and inputs of the trunk, nobody's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ("a", "b")
PLAIN = [
    (name, place)
    for name in method_names()
    if method_class(name).reads not in ("losses", "lookahead")
    for place in sorted(method_class(name).where)
]


def make(name: str) -> steelyard.Balancer:
    options: dict[str, Any] = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, list(TASKS), heads="plain", generator=torch.Generator().manual_seed(0), **options)


def trunk(bias: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, bias=bias), nn.Tanh()).double()


def heads(kind: Any, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {task: kind(torch.randn(2, 6, generator=generator, dtype=torch.float64)) for task in TASKS}


def losses(features: Tensor, weights: dict[str, Tensor], way: str) -> dict[str, Tensor]:
    def output(weight: Tensor) -> Tensor:
        return nn.functional.linear(features, weight) if way == "linear" else (features[:, None] * weight).tanh().sum(2)

    return {
        task: (3 * k + 1) * (output(weight) - k).square().mean() for k, (task, weight) in enumerate(weights.items())
    }


@pytest.mark.parametrize("bias", [False, True], ids=["bare trunk", "trunk"])
@pytest.mark.parametrize("way", ["linear", "product"])
@every(("name", "place"), PLAIN)
def test_heads_of_plain_tensors_are_heads(name: str, place: str, way: str, bias: bool) -> None:
    found = []
    for kind in (nn.Parameter, lambda tensor: tensor.requires_grad_()):
        network, weights = trunk(bias), heads(kind)
        features = network(torch.randn(8, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
        each = losses(features, weights, way)
        where = network if place == "trunk" else features
        make(name)(each, shared=where, probes=[each, each]).backward()
        found.append([*(parameter.grad for parameter in network.parameters()), *(w.grad for w in weights.values())])
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(*found, strict=True))


TRUNKS = [name for name, place in PLAIN if place == "trunk"]
AT_BOUNDARY = [name for name in TRUNKS if make(name).looks_for(True) != "rows"]


@pytest.mark.parametrize("kind", ["input", "table"])
@every("name", TRUNKS)
def test_inputs_of_the_trunk_are_nobodys(name: str, kind: str) -> None:
    """With an input that requires grad, the parameters receive what they do without."""
    found = []
    for required in (False, True):
        network, weights = trunk(True), heads(nn.Parameter)
        table = nn.Embedding(3, 2).double()
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x.requires_grad_(required)
        seen = x if kind == "input" else torch.cat([x[:, :2], table(torch.arange(8) % 3)], 1)
        each = losses(network(seen), weights, "linear")
        make(name)(each, shared=[network, table], probes=[each, each]).backward()
        found.append([parameter.grad for parameter in (*network.parameters(), *weights.values())])
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(*found, strict=True))


def in_the_middle(kind: Any) -> tuple[dict[str, Tensor], nn.Module, list[Tensor]]:
    """A perturbation of what one part of the trunk hands to the next."""
    network, weights = nn.Sequential(trunk(True), nn.Linear(6, 6).double()), heads(nn.Parameter)
    extra = torch.zeros(8, 6, dtype=torch.float64, requires_grad=True)
    return losses(network[1](network[0](torch.ones(8, 4).double()) + extra), weights, "linear"), network, []


def derivative(kind: Any) -> tuple[dict[str, Tensor], nn.Module, list[Tensor]]:
    """Heads whose derivative by the input is in a loss."""
    network, weights = trunk(True), heads(kind)
    x = torch.ones(8, 4, dtype=torch.float64, requires_grad=True)
    features = network(x)
    each = losses(features, weights, "linear")
    (slope,) = torch.autograd.grad((features @ weights["a"].T).sum(), x, create_graph=True)
    each["a"] = each["a"] + (slope - 1).square().mean()
    return each, network, list(weights.values())


@pytest.mark.parametrize("build", [in_the_middle, derivative])
@every("name", AT_BOUNDARY)
def test_what_the_graph_does_not_show_is_refused(name: str, build: Any) -> None:
    each, network, _ = build(lambda tensor: tensor.requires_grad_())
    with pytest.raises(steelyard.errors.SharedError, match="Parameter, and the graph does not show"):
        make(name)(each, shared=network, probes=[each, each])


@pytest.mark.parametrize(
    "name", [name for name in AT_BOUNDARY if name != "db-mtl"]
)  # its plain heads are those of logs
def test_parameters_beside_a_derivative_by_the_input_are_heads(name: str) -> None:
    each, network, weights = derivative(nn.Parameter)
    expected = torch.autograd.grad(each["a"] + each["b"], weights, retain_graph=True)
    make(name)(each, shared=network, probes=[each, each]).backward()
    for weight, gradient in zip(weights, expected, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, rtol=1e-9)


ON_TRUNKS = [name for name in method_names() if method_class(name).where == {"trunk"}]


@pytest.mark.parametrize("name", ON_TRUNKS)
def test_a_trunk_of_plain_tensors_is_told_why_it_is_none(name: str) -> None:
    weight = torch.ones(3, requires_grad=True)
    each = {"a": weight.sum(), "b": weight.square().sum()}
    options: dict[str, Any] = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    with pytest.raises(steelyard.errors.SharedError, match=r"Leaf tensors that are no nn\.Parameter count"):
        steelyard.make(name, list(TASKS), **options)(each, shared=[weight], probes=[each, each])
