"""Losses that are outputs of one node (a vector of losses, unbound) are what they are when each is made by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b", "c"]
# They recompute losses, or bring those of further batches: there is no vector to unbind.
LEFT_OUT = [name for name in method_names() if method_class(name).reads in ("lookahead", "cross_gramian")]


def gradients(name: str, place: str, headless: bool, unbound: bool) -> list[Tensor]:
    torch.manual_seed(0)
    options = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    heads = nn.ModuleList([nn.Linear(3, 2) for _ in TASKS]).double()
    balancer = steelyard.make(name, TASKS, generator=torch.Generator().manual_seed(0), **options)
    z = trunk(torch.randn(8, 4, dtype=torch.float64))
    if headless:
        sizes = torch.tensor([6.0, 8.0, 0.1], dtype=torch.float64)
        mixed = z @ torch.randn(3, 3, dtype=torch.float64)  # no parameter of a head
        losses = list(((mixed - 1).square().mean(0) * sizes).unbind())
        losses = losses if unbound else [loss * 1 for loss in losses]
    else:
        losses = [head(z).square().mean() * 3**k for k, head in enumerate(heads)]
        losses = list(torch.stack(losses).unbind()) if unbound else losses
    shared = z if place == "features" else trunk
    balancer(dict(zip(TASKS, losses, strict=True)), shared=shared).backward()
    return [parameter.grad for parameter in (*trunk.parameters(), *heads.parameters()) if parameter.grad is not None]


@pytest.mark.parametrize("headless", [False, True], ids=["heads", "no heads"])
@pytest.mark.parametrize("place", ["features", "trunk"])
@every("name", [name for name in method_names() if name not in LEFT_OUT])
def test_an_unbound_vector_of_losses(name: str, place: str, headless: bool) -> None:
    if place not in method_class(name).where:
        pytest.skip(f"{name} is not defined there")
    expected = gradients(name, place, headless, unbound=False)
    found = gradients(name, place, headless, unbound=True)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
