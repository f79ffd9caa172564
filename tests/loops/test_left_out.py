"""A loss that is left out of a step spoils nothing, whatever its backward makes of nothing or of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import Tensor

import steelyard
from cells import every
from loops.loss_kinds import Loss, fused, plain, reentrant
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy

TASKS = ("main", "bad", "third")


@pytest.fixture(scope="module")
def losses() -> Iterator[dict[str, Loss]]:
    with torch._functorch.config.patch(donated_buffer=False):  # for methods that look first
        compiled = torch.compile(plain, backend="aot_eager")
        yield {"plain": plain, "fused": fused, "reentrant": reentrant, "compiled": compiled}


def make(name: str, **options: Any) -> steelyard.Balancer:
    if "main" in options_of(method_class(name)):
        options["main"] = TASKS[0]
    return steelyard.make(name, list(TASKS), generator=torch.Generator().manual_seed(0), **options)


def places(name: str) -> list[str]:
    """Where the method reads gradients; without any, or looking ahead, it takes the losses alone."""
    method = make(name)
    return sorted(method.where) if method.needs_shared else ["losses"]


MODES = [(name, place) for name in method_names() for place in places(name)]


def toy_of(name: str, place: str, loss: Loss) -> Toy:
    method = make(name)
    looking, probing = method.reads == "lookahead", method.reads == "cross_gramian"
    return _Toy(loss, TASKS, at_trunk=place == "trunk", looking=looking, probing=probing)


class _Toy(Toy):
    """The toy, with another loss function."""

    def __init__(self, loss: Loss, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.loss = loss

    def loss_of(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss(output, target)


def backward(toy: Toy, balancer: steelyard.Balancer, left_out: str | None = None) -> list[Tensor]:
    losses, where = toy.losses()
    if left_out is not None:
        del losses[left_out]
    for parameter in toy.parameters():
        parameter.grad = None
    result = balancer(losses, **where)
    assert bool(result.isfinite())
    result.backward()
    return [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in toy.parameters()]


@pytest.mark.parametrize("kind", ["plain", "fused", "reentrant", "compiled"])
@every(("name", "place"), MODES)
def test_a_dropped_task_spoils_nothing(losses: dict[str, Any], name: str, place: str, kind: str) -> None:
    if kind == "reentrant" and (place != "losses" or make(name).reads == "lookahead"):
        pytest.skip("torch lets nobody look through reentrant checkpointing")
    if make(name).reads == "lookahead" and kind != "plain":
        pytest.skip("a step ahead is taken through functional_call")
    toy, clean = (toy_of(name, place, losses[kind]) for _ in range(2))
    toy.targets["bad"][3, 1] = float("nan")
    dropping = backward(toy, make(name, on_nonfinite="drop_task"))
    for gradient, expected in zip(dropping, backward(clean, make(name), left_out="bad"), strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-9)
    assert all(not bool(gradient.any()) for gradient in backward(toy, make(name, on_nonfinite="skip_step")))
