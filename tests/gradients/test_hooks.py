"""Hooks that change gradients on their way: a look sees what the backward pass will bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import task_gradients, weighted_sum
from steelyard.gradients import trunk as trunk_module
from steelyard.gradients.graph import METADATA, Survey
from steelyard.gradients.segments import Segment, pieces
from steelyard.gradients.trunk import trunk_gradients

WIDTH, TASKS = 30, ("a", "b", "c")
PLACES = ("none", "output", "activation", "features", "weight", "bias")


def half_gone(gradient: Tensor) -> Tensor:
    return gradient * torch.linspace(0, 2, WIDTH).to(gradient)


def network(place: str) -> tuple[list[nn.Parameter], list[nn.Parameter], dict[str, Tensor], Tensor]:
    """Three layers; a hook on the second one's output, activation or parameters, or on what the heads read."""
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)]).double()
    heads = nn.ModuleList([nn.Linear(WIDTH, 2) for _ in TASKS]).double()
    z = torch.randn(5, WIDTH).double()
    for depth, layer in enumerate(layers):
        z = layer(z)
        if place == "output" and depth == 1:
            z.register_hook(half_gone)
        z = z.tanh()
        if (place == "activation" and depth == 1) or (place == "features" and depth == 2):
            z.register_hook(half_gone)
    if place in ("weight", "bias"):
        getattr(layers[1], place).register_hook(half_gone)
    losses = {task: (k + 1) * head(z).square().mean() for k, (task, head) in enumerate(zip(TASKS, heads, strict=True))}
    return list(layers.parameters()), list(heads.parameters()), losses, z


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, cut: bool) -> Iterator[list[int]]:
    """Cut the trunk everywhere, if at all, and count the looks that start again in one piece."""
    again: list[int] = []
    in_one_piece = trunk_module.in_one_piece

    def spy(found: Survey) -> Segment:
        again.append(1)
        return in_one_piece(found)

    with monkeypatch.context() as patch:
        if cut:
            patch.setattr(trunk_module, "segments", lambda found, held: pieces(found))
        patch.setattr(trunk_module, "in_one_piece", spy)
        yield again


@pytest.mark.parametrize("cut", [False, pytest.param(True, marks=pytest.mark.skipif(not METADATA, reason="no cuts"))])
@pytest.mark.parametrize("place", PLACES)
def test_gramian_of_a_trunk_with_hooks(place: str, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, _, losses, _ = network(place)
    rows = task_gradients(losses, parameters)
    J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows.values()])
    with counted(monkeypatch, cut) as again:
        found = trunk_gradients(TASKS, list(losses.values()), parameters, at_boundary=True)
    assert torch.allclose(found.gramian, J @ J.T, rtol=1e-10)
    assert bool(again) is (cut and place in ("activation", "features", "output")), "a hook would have run twice"


@pytest.mark.parametrize("at", ["trunk", "features"])
@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("place", PLACES)
def test_what_arrives_past_hooks(place: str, heads: str, at: str) -> None:
    parameters, own, losses, features = network(place)
    at_trunk, at_heads = task_gradients(losses, parameters), task_gradients(losses, own)
    balancer = steelyard.make("mgda(normalise=l2)", TASKS, heads=heads)
    (balancer(losses, shared=parameters if at == "trunk" else features) / 3).backward()
    weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
    on_heads = weights if heads == "weighted" else dict.fromkeys(TASKS, 1.0)
    for places, expected in ((parameters, weighted_sum(weights, at_trunk)), (own, weighted_sum(on_heads, at_heads))):
        arrived = torch.cat([parameter.grad.flatten() for parameter in places]) * 3
        wanted = torch.cat([gradient.flatten() for gradient in expected])
        assert float((arrived - wanted).norm()) < 1e-9 * float(wanted.norm())


def in_place(gradient: Tensor) -> None:
    gradient.mul_(0.5)


def as_module(layer: nn.Module) -> None:
    layer.register_full_backward_pre_hook(lambda module, gradients: (half_gone(gradients[0]),))


@pytest.mark.skipif(not METADATA, reason="before torch 2.6 nothing is cut")
@pytest.mark.parametrize("hook", [in_place, as_module])
def test_hooks_of_other_kinds(hook: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)]).double()
    if hook is as_module:
        as_module(layers[1])
    z = torch.randn(5, WIDTH).double()
    for depth, layer in enumerate(layers):
        z = layer(z).tanh()
        if hook is in_place and depth == 1:
            z.register_hook(in_place)
    losses = {task: nn.Linear(WIDTH, 2).double()(z).square().mean() for task in TASKS}
    rows = task_gradients(losses, list(layers.parameters()))
    J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows.values()])
    with counted(monkeypatch, cut=True):
        found = trunk_gradients(TASKS, list(losses.values()), list(layers.parameters()), at_boundary=False)
    assert torch.allclose(found.gramian, J @ J.T, rtol=1e-10)


@pytest.mark.parametrize("spec", ["mgda(normalise=l2)", "cagrad", "db-mtl(beta=0)"])
@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("at", ["features", "trunk"])
@pytest.mark.parametrize("when", ["before the call", "after it"])
def test_a_hook_on_the_features_that_comes_after_the_call(when: str, at: str, heads: str, spec: str) -> None:
    """Of plain heads at the trunk it takes for somebody else's what it should change: no node shows a tensor's hooks.

    Where this fails since it is right, or refused, docs/works-with.md says too little.
    """
    parameters, _, losses, z = network("none")
    if when == "before the call":
        z.register_hook(half_gone)
    balancer = steelyard.make(spec, TASKS, heads=heads)
    loss = balancer(losses, shared=parameters if at == "trunk" else z)
    if when == "after it":
        z.register_hook(half_gone)
    at_trunk = task_gradients(losses, parameters)
    loss.backward()
    wanted = weighted_sum(dict(zip(TASKS, balancer.last_weights.tolist(), strict=True)), at_trunk)
    off = torch.cat([(parameter.grad - each).flatten() for parameter, each in zip(parameters, wanted, strict=True)])
    size = torch.cat([each.flatten() for each in wanted]).norm()
    seen = (when, at, heads) != ("after it", "trunk", "plain")
    assert bool(off.norm() < 1e-6 * size) is seen
