"""`losses_of`: a model that is evaluated once more stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import steelyard
from cells import every

TASKS = ["a", "b"]


class Recurrent(nn.Module):
    """Carries its hidden state from batch to batch, in some kind of keeping."""

    def __init__(self, keeping: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.keeping = keeping
        self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 2)
        self.inner = nn.Identity()
        if keeping == "attribute":
            self.hidden = torch.zeros(5, 6)
        if keeping == "none":
            self.hidden = None
        if keeping == "buffer":
            self.register_buffer("hidden", torch.zeros(5, 6))
        if keeping == "empty buffer":
            self.register_buffer("hidden", None)
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        holder = self.inner if self.keeping == "created" else self
        before = getattr(holder, "hidden", None)
        hidden = self.cell(x, x.new_zeros(len(x), 6) if before is None else before)
        holder.hidden = hidden.detach()
        self.batches += 1
        return self.out(hidden)

    def state(self) -> Tensor | None:
        return getattr(self.inner if self.keeping == "created" else self, "hidden", None)


def losses_on(call: Callable[..., Tensor], x: Tensor) -> dict[str, Tensor]:
    y = call(x)
    return {"a": (y[:, 0] - 1).square().mean(), "b": (y[:, 1] - 3).square().mean()}


METHODS: dict[str, dict[str, Any]] = {
    "famo": {},
    "hydalearn": {"main": "a"},
    "auto-lambda": {},
    "mgda(solver=amortised,product=forward)": {},
    "mgda(solver=amortised)": {},
}


@every("keeping", ["attribute", "none", "created", "buffer", "empty buffer"])
@every("method", METHODS)
def test_a_state_goes_on_by_the_loops_own_batches(method: str, keeping: str) -> None:
    def run(name: str, options: dict[str, Any]) -> Recurrent:
        model, batches = Recurrent(keeping), torch.Generator().manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        balancer = steelyard.make(name, TASKS, **options).attach(optimizer)
        for _ in range(3):
            x = torch.randn(5, 4, generator=batches)
            again = steelyard.losses_of(model, losses_on, x, held_out=torch.ones(5, 4))
            optimizer.zero_grad()
            balancer(losses_on(model, x), shared=model.cell, again=again).backward()
            optimizer.step()
        return model

    plain, further = run("equal", {}), run(method, METHODS[method])
    assert further.batches == plain.batches == 3
    assert torch.equal(further.state(), plain.state())


def test_what_is_created_deleted_and_set_is_put_back() -> None:
    class Restless(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.created = x
            self.register_buffer("further", x)
            del self.deleted
            self.kept, self.eager = [2], False
            self.train(not self.training)
            return super().forward(x)

    model = nn.Sequential(nn.Linear(2, 2), Restless(2, 1))
    model[1].deleted, model[1].kept, model[1].eager = "there", [1], True
    before = dict(vars(model[1]))
    again = steelyard.losses_of(model, lambda call, x: {"a": call(x).mean()}, torch.ones(3, 2))
    assert again()["a"].item() == again()["a"].item()
    after = vars(model[1])
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    assert dict(model.named_buffers()) == {}


def test_it_is_put_back_where_the_losses_fail() -> None:
    model = Recurrent("none")

    def fails(call: Callable[..., Tensor], x: Tensor) -> dict[str, Tensor]:
        call(x)
        raise ArithmeticError("no loss")

    with pytest.raises(ArithmeticError):
        steelyard.losses_of(model, fails, torch.ones(5, 4))()
    assert model.hidden is None
    assert model.batches == 0


def test_within_one_call_a_state_goes_on() -> None:
    """Two passes for one set of losses see each other, as they do in the loop."""
    model, x = Recurrent("attribute"), torch.ones(5, 4)
    found = steelyard.losses_of(model, lambda call, x: {"a": call(x).mean(), "b": call(x).mean()}, x)()
    assert found["a"].item() == model(x).mean().item()
    assert found["b"].item() == model(x).mean().item()


class Normed(nn.Module):
    """Weights that are computed from parameters and buffers, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = parametrizations.weight_norm(nn.Linear(4, 8))
        self.twice = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.out = nn.Linear(8, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.twice(self.twice(self.first(x).tanh())))


def test_weights_that_are_cached_are_computed_from_what_is_lent() -> None:
    model, x = Normed(), torch.randn(16, 4).double()
    again = steelyard.losses_of(model, losses_on, x)
    lent = {name: 1.1 * parameter.detach() for name, parameter in model.named_parameters()}
    moved = copy.deepcopy(model)
    moved.load_state_dict({**model.state_dict(), **lent})
    with parametrize.cached():
        weight = model.first.weight
        found, repeated = again(lent), again(lent)
        assert model.first.weight is weight, "what was cached is there again"
        with parametrize.cached():
            inner = again(lent)
    with parametrize.cached():
        expected = losses_on(moved, x)
    for each in (found, repeated, inner):
        assert torch.equal(each["a"], expected["a"])
    assert torch.equal(again()["a"], losses_on(copy.deepcopy(model), x)["a"])


@every("method", [name for name in METHODS if "forward" not in name])  # which weight_norm does not have
def test_a_method_with_further_passes_trains_in_cached_as_without(method: str) -> None:
    def run(cached: bool) -> tuple[Tensor, list[Tensor]]:
        model = Normed()
        model.twice = nn.Identity()  # of a power iteration there are fewer
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        balancer = steelyard.make(method, TASKS, **METHODS[method]).attach(optimizer)
        for _ in range(3):
            x, other = torch.randn(16, 4).double(), torch.randn(16, 4).double()
            again = steelyard.losses_of(model, losses_on, x, held_out=other)
            with parametrize.cached() if cached else nullcontext():
                optimizer.zero_grad()
                balancer(losses_on(model, x), shared=model.first, again=again).backward()
                optimizer.step()
        return balancer.last_weights, [parameter.detach() for parameter in model.parameters()]

    (plain, parameters), (weights, others) = run(False), run(True)
    assert torch.equal(weights, plain)
    assert all(map(torch.equal, parameters, others))
