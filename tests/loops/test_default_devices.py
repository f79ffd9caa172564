"""`torch.set_default_device` and models that are made on the meta device: tensors of the balancer are made elsewhere.

The meta device stands for an accelerator here: what is made on it by mistake cannot be computed with.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy

TASKS = ("main", "second", "third")


def make(name: str) -> steelyard.Balancer:
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(0)}
    if "main" in options_of(method_class(name)):
        options["main"] = TASKS[0]
    return steelyard.make(name, list(TASKS), **options)


def places(name: str) -> list[str]:
    method = make(name)
    return sorted(method.where) if method.needs_shared else ["losses"]


# Methods that look ahead run the network inside the call, which makes its tensors where its author wants them.
NAMES = [name for name in method_names() if make(name).reads != "lookahead"]
MODES = [(name, place) for name in NAMES for place in places(name)]


def default(device: str | None) -> Any:
    return nullcontext() if device is None else torch.device(device)


def two_steps(name: str, place: str, device: str | None) -> list[Tensor]:
    with default(device):
        balancer = make(name)
    toy = Toy(TASKS, at_trunk=place == "trunk", probing=balancer.reads == "cross_gramian")
    found = []
    for _ in range(2):
        for parameter in toy.parameters():
            parameter.grad = None
        losses, where = toy.losses()
        with default(device):
            balancer(losses, **where).backward()
            if balancer.needs_after:
                balancer.observe(after={task: 0.9 * loss.detach() for task, loss in losses.items()})
        found.extend(parameter.grad for parameter in toy.parameters() if parameter.grad is not None)
    with default(device):
        copy.deepcopy(balancer).load_state_dict(balancer.state_dict())
        balancer.metrics()
        balancer.reset()
    return found


@every(("name", "place"), MODES)
def test_a_default_device_changes_nothing(name: str, place: str) -> None:
    plain, under_default = two_steps(name, place, None), two_steps(name, place, "meta")
    assert plain
    assert all(torch.equal(one, other) for one, other in zip(plain, under_default, strict=True))


def tensors(balancer: steelyard.Balancer) -> dict[str, Tensor]:
    return {key: value for key, value in balancer.state_dict().items() if isinstance(value, Tensor)}


@every("name", method_names())
def test_a_model_from_the_meta_device_has_the_state_of_a_new_one(name: str) -> None:
    """`to_empty` gives memory with whatever stood in it, and nobody would initialise a balancer afterwards."""
    balancer = make(name)
    nn.ModuleList([balancer]).to("meta").to_empty(device="cpu")
    for key, value in tensors(make(name)).items():
        torch.testing.assert_close(tensors(balancer)[key], value, rtol=0, atol=0, equal_nan=True)


def test_to_empty_keeps_what_has_been_learnt() -> None:
    balancer, toy = make("ema"), Toy(TASKS)
    balancer(toy.losses()[0])
    before = tensors(balancer)
    nn.ModuleList([balancer]).to_empty(device="cpu")
    assert before
    for key, value in before.items():
        torch.testing.assert_close(tensors(balancer)[key], value, rtol=0, atol=0)
