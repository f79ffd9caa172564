"""Auto-λ against its authors' loop, written out on deep copies with autograd through the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import steelyard
from steelyard.errors import MissingInputError, OptionError, UnknownNameError

TASKS = ["main", "near", "far"]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(seed: int, tasks: list[str] = TASKS) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    signal = inputs[:, 0] + inputs[:, 1] ** 2
    return inputs, torch.stack([signal, 2 * signal, -torch.randn(16, generator=generator).double()], 1), tasks


def losses_on(call, batch):
    inputs, targets, tasks = batch
    errors = (call(inputs) - targets).square().mean(0)
    return {task: errors[k] for k, task in enumerate(TASKS) if task in tasks}


class Authors:
    """Weights are a leaf; a twin of the model takes the virtual step; a Hessian-vector product by differences."""

    def __init__(self, model: nn.Module, mains: list[str], start: float, weight_rate: float) -> None:
        self.model, self.mains = model, mains
        self.weights = torch.full((3,), start, dtype=torch.float64, requires_grad=True)
        self.adam = torch.optim.Adam([self.weights], lr=weight_rate)

    def weighted(self, model, batch) -> torch.Tensor:
        return (self.weights * torch.stack(list(losses_on(model, batch).values()))).sum()

    def look(self, train, held_out, rate: float, momentum: dict | None = None) -> None:
        twin = copy.deepcopy(self.model)
        gradients = torch.autograd.grad(self.weighted(self.model, train), list(self.model.parameters()))
        with torch.no_grad():
            for own, copied, gradient in zip(self.model.parameters(), twin.parameters(), gradients, strict=True):
                before = momentum.get(own, 0) if momentum else 0
                copied.copy_(own - rate * (0.9 * before + gradient))
        judged = sum(losses_on(twin, held_out)[main] for main in self.mains)
        direction = torch.autograd.grad(judged, list(twin.parameters()))
        epsilon = 0.01 / torch.cat([d.flatten() for d in direction]).norm()
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                for own, copied, d in zip(self.model.parameters(), twin.parameters(), direction, strict=True):
                    copied.copy_(own + sign * epsilon * d)
            found.append(torch.autograd.grad(self.weighted(twin, train), self.weights)[0])
        self.weights.grad = -rate * (found[0] - found[1]) / (2 * epsilon)
        self.adam.step()


@pytest.mark.parametrize("step", ["plain", "optimizer"])
@pytest.mark.parametrize("main", ["main", None])
def test_it_is_the_authors_loop(main: str | None, step: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = steelyard.make("auto-lambda", TASKS, main=main, start=0.3, weight_rate=0.02, step=step).attach(optimizer)
    authors = Authors(model, TASKS if main is None else [main], 0.3, 0.02)
    for number in range(5):
        train, held_out = batch(number), batch(100 + number)
        momenta = {own: state["momentum_buffer"] for own, state in optimizer.state.items()}
        authors.look(train, held_out, 0.1, momenta if step == "optimizer" else None)
        expected = authors.weights.tolist()  # they weigh this step with what it has taught
        optimizer.zero_grad()
        method(losses_on(model, train), again=steelyard.losses_of(model, losses_on, train, held_out)).backward()
        assert method.last_weights.tolist() == pytest.approx(expected, rel=1e-9)
        optimizer.step()
    assert len(set(expected)) == 3, "the weights have moved apart"


def test_the_difference_is_the_derivative_along_the_main_gradient() -> None:
    """With one step of tiny length, ``d`` is the main gradient on the held-out batch, and Adam sees ``-η ⟨g_t, d⟩``."""
    model, train, held_out = network(), batch(0), batch(1)
    rate = 1e-9
    method = steelyard.make("auto-lambda(main=main)", TASKS, learning_rate=rate)

    losses = losses_on(model, train)
    parameters = list(model.parameters())
    along = torch.cat([g.flatten() for g in torch.autograd.grad(losses_on(model, held_out)["main"], parameters)])
    products = [
        float(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]) @ along)
        for loss in losses.values()
    ]
    method(losses, again=steelyard.losses_of(model, losses_on, train, held_out))
    moments = method.lambdas_first_moment / (1 - 0.9) / -rate
    assert moments.tolist() == pytest.approx(products, rel=1e-3, abs=1e-3 * max(map(abs, products)))


def test_without_a_main_loss_to_judge_by_weights_hold_still() -> None:
    model = network()
    method = steelyard.make("auto-lambda(main=main,weight_rate=0.1)", TASKS)
    blind = steelyard.losses_of(model, losses_on, batch(0), batch(1, ["near", "far"]))
    for _ in range(2):
        method(losses_on(model, batch(0)), again=blind)
        assert method.last_weights.tolist() == [0.1, 0.1, 0.1]


def test_what_is_missing_is_said() -> None:
    model = network()
    method = steelyard.make("auto-lambda", TASKS)
    with pytest.raises(MissingInputError, match="held_out=other_batch"):
        method(losses_on(model, batch(0)), again=steelyard.losses_of(model, losses_on, batch(0)))
    with pytest.raises(UnknownNameError, match="Did you mean 'near'"):
        steelyard.make("auto-lambda(main=neer)", TASKS)


def test_the_main_tasks_follow_a_change_of_tasks() -> None:
    learnt = []
    for tasks in (["main", "near"], ["near", "far"]):
        model = network()
        balancer = steelyard.make("auto-lambda", tasks, learning_rate=0.1, weight_rate=0.1)
        data, held_out = batch(1, ["near", "far"]), batch(2, ["near", "far"])
        again = steelyard.losses_of(model, losses_on, data, held_out=held_out)
        balancer.set_tasks(["near", "far"])
        balancer(losses_on(model, data), again=again)
        learnt.append(balancer.lambdas)
    assert torch.equal(*learnt)


def test_a_main_task_cannot_be_dropped() -> None:
    balancer = steelyard.make("auto-lambda", ["main", "near"], main="main")
    with pytest.raises(OptionError, match="serves the main task 'main', which is not among near, far"):
        balancer.set_tasks(["near", "far"])
