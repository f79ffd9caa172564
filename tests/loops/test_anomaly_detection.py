"""torch.autograd.detect_anomaly: looks through float16 try seeds that overflow, and raise nothing by that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from loops.test_left_out import MODES, TASKS, make

READING = [mode for mode in MODES if mode[1] != "losses"]


def gradients(name: str, place: str, anomaly: bool, spoil: bool = False) -> list[Tensor]:
    torch.manual_seed(0)
    trunk, heads = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.ModuleDict({task: nn.Linear(6, 2) for task in TASKS})
    x = torch.randn(8, 5)
    with torch.autograd.set_detect_anomaly(anomaly):
        with torch.autocast("cpu", torch.float16):
            features = trunk(x)
            losses = {task: 1e3 * (head(features) - 1).square().mean() for task, head in heads.items()}
            if spoil:
                losses["bad"] = losses["bad"] + 0 * (features - features).sum().sqrt()
            shared: Any = trunk if place == "trunk" else features
            result = make(name)(losses, shared=shared, probes=[losses, losses])
        result.backward()
    return [parameter.grad for parameter in (*trunk.parameters(), *heads.parameters()) if parameter.grad is not None]


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@every(("name", "place"), READING)
def test_seeds_that_overflow_are_no_anomaly(name: str, place: str) -> None:
    for found, expected in zip(gradients(name, place, True), gradients(name, place, False), strict=True):
        assert bool(found.isfinite().all())
        assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore:Error detected in:UserWarning")
@every(("name", "place"), READING)
def test_a_gradient_that_is_nan_whatever_the_seed_is_named(name: str, place: str) -> None:
    with pytest.raises(RuntimeError, match=r"(Sqrt|Mul)Backward0.* returned nan"):
        gradients(name, place, True, spoil=True)


def test_a_look_for_spoiled_losses_is_no_anomaly() -> None:
    x = torch.ones(3, requires_grad=True)
    v = torch.stack([x.sum(), (x - float("nan")).square().sum()])
    balancer = steelyard.make("uw", ["a", "b"], on_nonfinite="drop_task")
    with torch.autograd.set_detect_anomaly(True), pytest.warns(steelyard.SteelyardWarning, match="the loss of 'b' is"):
        balancer({"a": v[0], "b": v[1]})
