"""Losses that make their gradient in the forward pass and scale that very buffer in their backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b"]


class Fused(torch.autograd.Function):
    """Its backward pass can run once: what arrives stays in the buffer."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        ctx.gradient = 2 * (output - target).detach() / output.numel()
        return (output - target).square().mean()

    @staticmethod
    def backward(ctx: Any, arrived: Tensor) -> Any:
        if bool(arrived != 1):
            ctx.gradient.data.mul_(arrived)
        return ctx.gradient, None


class Saved(Fused):
    """The same by a tensor that is saved, where autograd refuses a second pass."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(2 * (output - target).detach() / output.numel())
        return (output - target).square().mean()

    @staticmethod
    def backward(ctx: Any, arrived: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(arrived), None


def make(name: str) -> steelyard.Balancer:
    main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, TASKS, **main)


# Whoever reads gradients sends them through the loss more than once, which such a loss does not bear.
LOSS_ONLY = [name for name in method_names() if make(name).reads == "losses" and not make(name).needs_shared]


def gradients(name: str, loss: Any) -> list[Tensor]:
    """Of the first steps, in which most is looked at."""
    torch.manual_seed(0)
    trunk, balancer = nn.Linear(3, 4), make(name)
    heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})
    found = []
    for _ in range(3):
        features = trunk(torch.ones(5, 3)).tanh()
        losses = {task: loss(heads[task](features), torch.full((5, 1), float(k))) for k, task in enumerate(TASKS)}
        trunk.zero_grad()
        balancer(losses).backward()
        if balancer.needs_after:
            balancer.observe(after={task: loss.detach() for task, loss in losses.items()})
        assert trunk.weight.grad is not None
        found.append(trunk.weight.grad.clone())
    return found


@pytest.mark.parametrize("loss", [Fused.apply, Saved.apply], ids=["kept", "saved"])
@every("name", LOSS_ONLY)
def test_no_step_sends_anything_through_it_but_its_own_backward_pass(name: str, loss: Any) -> None:
    torch.testing.assert_close(gradients(name, loss), gradients(name, nn.functional.mse_loss))


# Those that look a step ahead evaluate the network anew.
LOOKING = [name for name in method_names() if make(name).where >= {"features"} and make(name).reads != "lookahead"]


@every("name", LOOKING)
@pytest.mark.parametrize("way", ["compiled", "autocast"])
def test_a_look_sends_nothing_but_1_through_it(name: str, way: str) -> None:
    """Where gradients may underflow other losses are sent 65536, to be divided again: here that would stay."""

    def found(loss: Any) -> Tensor:
        torch.manual_seed(0)
        trunk = nn.Linear(3, 4)
        heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})
        called: Any = {
            task: torch.compile(head, backend="aot_eager") if way == "compiled" else head
            for task, head in heads.items()
        }
        options = {"main": "a"} if "main" in options_of(method_class(name)) else {}
        balancer = steelyard.make(name, TASKS, generator=torch.Generator().manual_seed(0), **options)
        features = trunk(torch.ones(5, 3)).tanh()
        with torch.autocast("cpu", torch.float16, enabled=way == "autocast"):
            outputs = {task: called[task](features) for task in TASKS}
        losses = {
            task: loss(each.float(), torch.full((5, 1), float(k))) for k, (task, each) in enumerate(outputs.items())
        }
        others = {"probes": [losses, losses]} if balancer.reads == "cross_gramian" else {}
        balancer(losses, shared=features, **others).backward()
        assert trunk.weight.grad is not None
        return trunk.weight.grad

    with torch._functorch.config.patch(donated_buffer=False):
        torch.testing.assert_close(found(Fused.apply), found(nn.functional.mse_loss), rtol=1e-2, atol=1e-4)
