"""Gradients that come whatever arrives at them: no weight reaches such a loss, and what is added is in every task."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from loops.loss_kinds import fused, plain, reentrant
from steelyard.errors import SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b"]


def make(name: str, **options: Any) -> steelyard.Balancer:
    main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, TASKS, **main, **options)


MODES = [
    (name, place)
    for name in method_names()
    if make(name).reads not in ("lookahead", "cross_gramian")  # further batches, which the same code looks at
    for place in (sorted(make(name).where) if make(name).needs_shared else ["nowhere"])
]


class Ignoring(torch.autograd.Function):
    """A loss whose backward pass takes what arrives to be 1, as those of some extensions do."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(output - target)
        return (output - target).square().mean()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        return 2 * ctx.saved_tensors[0] / ctx.saved_tensors[0].numel(), None


class Adding(torch.autograd.Function):
    """Adds the gradient of an auxiliary loss in the backward pass, as mixtures of experts do to spread their load."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, auxiliary: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        return incoming, incoming.new_ones(())


class Trunk(nn.Module):
    def __init__(self, adds: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.adds = nn.Linear(3, 4), nn.Linear(4, 4), adds

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        added: Tensor = Adding.apply(hidden, hidden.square().mean()) if self.adds else hidden
        return self.second(added).tanh()


def said(name: str, place: str, loss: Any, adds: bool = False, steps: int = 3, **options: Any) -> list[str]:
    trunk, balancer = Trunk(adds), make(name, **options)
    heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            features = trunk(torch.ones(5, 3))
            losses = {"a": plain(heads["a"](features), torch.ones(5, 1))}
            losses["b"] = loss(heads["b"](features), torch.zeros(5, 1))
            shared = {"trunk": trunk, "features": features}.get(place)
            balancer(losses, shared=shared).backward()
            if balancer.needs_after:
                balancer.observe(after=losses)
    return [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]


@pytest.mark.parametrize(("name", "place"), MODES)
def test_a_loss_that_no_weight_reaches_is_named_once(name: str, place: str) -> None:
    (text,) = said(name, place, Ignoring.apply)
    assert "gradient of the loss of 'b' is the same whatever the loss is multiplied by" in text
    assert "multiply by that there (grad_output)" in text


@pytest.mark.parametrize(("name", "place"), MODES)
def test_a_gradient_that_is_added_on_the_way_is_told_where_it_is_read(name: str, place: str) -> None:
    """At features and without a place it is in no task's gradient, and arrives once, as it is."""
    found = said(name, place, plain, adds=True)
    assert len(found) == (place == "trunk")
    assert all("sends a gradient whatever arrives at it" in text for text in found)


@pytest.mark.parametrize("loss", [plain, fused])
@pytest.mark.parametrize(("name", "place"), MODES)
def test_other_losses_are_taken_without_a_word(name: str, place: str, loss: Any) -> None:
    assert said(name, place, loss) == []


def half(output: Tensor, target: Tensor) -> Tensor:
    return Ignoring.apply(output, target) / 2


def one_row(output: Tensor, target: Tensor) -> Tensor:
    return Ignoring.apply(output[:1], target[:1]) + plain(output, target)


@pytest.mark.parametrize("loss", [half, one_row])
def test_wherever_it_stands_in_the_loss(loss: Any) -> None:
    assert len(said("uw", "nowhere", loss)) == 1


def test_what_comes_later_is_looked_at_when_it_comes() -> None:
    balancer, head = make("uw"), nn.Linear(3, 1)
    x, target = torch.ones(5, 3), torch.zeros(5, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balancer({"a": plain(head(x), target)}).backward()
    with pytest.warns(SteelyardWarning, match="loss of 'b' is the same"):
        balancer({"a": plain(head(x), target), "b": Ignoring.apply(head(x), target)}).backward()


def test_what_cannot_be_looked_into_is_left_alone() -> None:
    """A reentrant block runs again in every backward pass; and another balancer counts its own."""
    assert said("uw", "nowhere", reentrant) == []
    inner = steelyard.make("uw", ["c"])
    assert said("equal", "nowhere", lambda output, target: 2 * inner({"c": plain(output, target)})) == []


def test_a_loss_whose_gradient_is_infinite_is_no_such_loss() -> None:
    assert (
        said("uw", "nowhere", lambda output, target: (output * 0).sqrt().mean() + 1, steps=1, on_nonfinite="ignore")
        == []
    )
