"""A balancer's result as a loss of another one: exact, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.errors import SharedError
from steelyard.method_registry import method_class, method_names, options_of

# Of the methods that read losses only, one: none of them replaces a gradient. Those that look ahead neither.
INNER = [("uw", "losses")] + [
    (name, place)
    for name in method_names()
    if method_class(name).reads not in ("losses", "lookahead")
    for place in sorted(method_class(name).where)
]
OUTER = [
    ("fixed", "losses"),
    ("mgda", "features"),
    ("mgda", "trunk"),
    ("pcgrad", "features"),
    ("pcgrad", "trunk"),
    ("graddrop", "features"),
    ("moco", "trunk"),
]

FEW = ("uw", "gradnorm", "mgda", "cagrad", "pcgrad", "db-mtl", "moco", "graddrop", "modo")
"""Of each kind of what is read, at all places; the others inside by `make slow`."""


def make(name: str, tasks: str) -> steelyard.Balancer:
    options: dict[str, Any] = {"main": tasks[0]} if "main" in options_of(method_class(name)) else {}
    if name == "fixed":
        options["weights"] = dict(zip(tasks, (0.3, 1.7), strict=True))
    return steelyard.make(name, list(tasks), generator=torch.Generator().manual_seed(0), **options)


class Nested:
    """An encoder, a neck and three heads; the inner balancer has a and b, the outer one that and c."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
        self.neck = nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double()
        self.heads = nn.ModuleDict({task: nn.Linear(5, 2) for task in "abc"}).double()
        self.x = torch.randn(7, 4, dtype=torch.float64)
        self.trunk = [*self.encoder.parameters(), *self.neck.parameters()]
        self.parameters = [*self.trunk, *self.heads.parameters()]

    def inner(self, name: str, place: str, deeper: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The inner result, c's loss, and the features."""
        middle = self.encoder(self.x)
        features = self.neck(middle)
        losses = {
            task: (1 + k) * (head(features) - k).square().mean() for k, (task, head) in enumerate(self.heads.items())
        }
        two = {task: losses[task] for task in "ab"}
        where = {
            "losses": None,
            "features": middle if deeper else features,
            "trunk": self.encoder if deeper else [self.encoder, self.neck],
        }[place]
        return make(name, "ab")(two, shared=where, probes=[two, two]), losses["c"], features


def expected(net: Nested, inner: Any, name: str, place: str) -> list[Tensor]:
    """The outer method on losses that are linear where it reads, with the gradients that inner result and c have."""
    result, loss, features = net.inner(*inner)
    losses = {"a": result, "c": loss}
    at: list[Tensor] = [features] if place == "features" else net.trunk  # type: ignore[assignment]
    # Asked for both at once, autograd shows what arrives at the features before hooks.
    rows, whole = ({task: _gradients(each, inputs) for task, each in losses.items()} for inputs in (at, net.parameters))
    factor = {task: nn.Parameter(torch.zeros((), dtype=torch.float64)) for task in "ac"}
    start = [each.detach() for each in at]
    points = [each.clone().requires_grad_() for each in start]
    if place == "trunk":
        points = [nn.Parameter(each) for each in points]
    moved = [point - each for point, each in zip(points, start, strict=True)]
    linear = {
        task: each.detach() + factor[task] + sum((g * by).sum() for g, by in zip(rows[task], moved, strict=True))
        for task, each in losses.items()
    }
    outer = make(name, "ac")
    outer(linear, shared={"losses": None, "features": points[0], "trunk": points}[place]).backward()
    found = [sum(factor[task].grad * whole[task][k] for task in "ac") for k in range(len(net.parameters))]
    if place == "trunk":
        found[: len(at)] = [point.grad for point in points]
    elif place == "features" and outer.heads == "plain":
        found[: len(net.trunk)] = _gradients(features, net.trunk, points[0].grad)
    return found  # type: ignore[return-value]


def _gradients(of: Tensor, at: Any, seed: Tensor | None = None) -> list[Tensor]:
    found = torch.autograd.grad(of, at, seed, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(at, found, strict=True)]


def is_below(result: Tensor, inner: tuple[str, str], outer: tuple[str, str], deeper: bool) -> bool:
    """Whether the inner balancer replaces gradients below where the outer one would."""
    if result.grad_fn.plan.redirection is None:  # type: ignore[union-attr]
        return False
    if inner[1] == "trunk" and make(inner[0], "ab").looks_for(True) == "rows":
        return True  # at the parameters
    # Both where the heads begin, the inner one finds the place in the graph, and the outer one is given the tensor.
    return deeper or (inner[1], outer[1]) == ("trunk", "features")


def test_the_few_inside_are_of_every_kind() -> None:
    assert {method_class(name).reads for name in FEW} == {method_class(name).reads for name, _ in INNER}


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@every("deeper", [False, True])
@every("outer", OUTER, ids=" ".join)
@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(each, id=" ".join(each), marks=[] if each[0] in FEW else pytest.mark.slow("for each method"))
        for each in INNER
    ],
)
def test_exact_or_refused(inner: tuple[str, str], outer: tuple[str, str], deeper: bool) -> None:
    net = Nested()
    result, loss, features = net.inner(*inner, deeper)
    shared = {"losses": None, "features": features, "trunk": [net.encoder, net.neck]}[outer[1]]
    if outer[0] in ("pcgrad", "graddrop") and is_below(result, inner, outer, deeper):
        with pytest.raises(SharedError, match=f"{outer[0]}: the loss of 'a' comes from another balancer"):
            make(outer[0], "ac")({"a": result, "c": loss}, shared=shared)
        return
    make(outer[0], "ac")({"a": result, "c": loss}, shared=shared).backward()
    for parameter, gradient in zip(net.parameters, expected(net, (*inner, deeper), *outer), strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12)  # type: ignore[arg-type]
