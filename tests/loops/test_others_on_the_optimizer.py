"""A batch in which a balancer has nothing to send leaves the gradients of others alone."""

import pytest
import torch
from torch import nn

import steelyard

pytestmark = pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")


def test_another_balancer_on_the_same_optimizer_steps_where_this_one_has_no_labels():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    one = steelyard.make("ema", ["a"]).attach(optimizer)
    other = steelyard.make("equal", ["b", "c"]).attach(optimizer)
    for labelled in (True, False):
        optimizer.zero_grad()
        before = weight.detach().clone()
        idle = {"a": weight[0] * 2 if labelled else 0 * weight.sum()}
        (one(idle) + other({"b": weight[1] * 3, "c": weight[1]})).backward()
        optimizer.step()
        moved = (before - weight.detach()).tolist()
        assert moved[1] == pytest.approx(0.4)
        assert (moved[0] > 0) == labelled
    assert other.steps == 2


@pytest.mark.parametrize("attached", [False, True])
def test_a_loss_beside_the_call_is_trained_on_in_a_batch_without_labels(attached):
    """Of semi-supervised training: the balancer has nothing to weigh, and reconstruction goes on."""
    torch.manual_seed(0)
    network = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    balancer = steelyard.make("equal", ["a", "b"])
    if attached:
        balancer.attach(optimizer)
    out = network(torch.ones(4, 3))
    before = network.weight.detach().clone()
    optimizer.zero_grad()
    (balancer({"a": 0 * out.sum(), "b": 0 * out.sum()}) + (out[:, 2] - 1).square().mean()).backward()
    optimizer.step()
    moved = (network.weight.detach() - before).abs().sum(1).tolist()
    assert moved[:2] == [0, 0]
    assert moved[2] > 0


def test_a_batch_without_any_gradient_moves_no_momentum():
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    balancer = steelyard.make("equal", ["a", "b"]).attach(optimizer)
    for labels in (1.0, 0.0):
        before = network.weight.detach().clone()
        optimizer.zero_grad()
        out = network(torch.ones(4, 3))
        balancer({"a": labels * out[:, 0].square().mean(), "b": labels * out[:, 1].square().mean()}).backward()
        optimizer.step()
        assert torch.equal(network.weight, before) == (labels == 0)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("closure", [False, True])
def test_a_step_that_one_balancer_withholds_is_none_for_the_other(bad: str, first: bool, closure: bool) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    strict = steelyard.make("ema", ["a", "b"], on_nonfinite="skip_step")
    other = steelyard.make("ema(start=first-loss,beta=0.5)", ["c", "d"])
    for balancer in (strict, other) if first else (other, strict):
        balancer.attach(optimizer)

    def evaluate(spoil: str) -> torch.Tensor:
        optimizer.zero_grad()
        a = weight[0] * (float("inf") if spoil == "loss" else 2.0)
        b = weight[1] + (weight[1] - weight[1].detach()).abs().sqrt() if spoil == "gradient" else weight[1]
        size = 100.0 if spoil else 1.0
        total = strict({"a": a, "b": b}) + other({"c": size * weight[0], "d": size * weight[1]})
        total.backward()
        return total

    for spoil in ("", bad, ""):
        before, average = weight.detach().clone(), other.average.clone()
        if closure:
            optimizer.step(lambda spoil=spoil: evaluate(spoil))
        else:
            evaluate(spoil)
            optimizer.step()
        assert torch.equal(before, weight) == bool(spoil)
        assert torch.equal(average, other.average) == bool(spoil)
    assert strict.steps == other.steps == 2


def test_a_balancer_that_was_taken_off_is_not_told() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    strict = steelyard.make("equal", ["a"], on_nonfinite="skip_step").attach(optimizer)
    other = steelyard.make("ema", ["b"]).attach(optimizer)
    other.attach(torch.optim.SGD([weight], lr=0.1))
    assert strict._attachment is not None
    assert other._attachment is not None
    strict({"a": weight[0] * float("nan")}).backward()
    optimizer.step()
    assert not other._attachment.skipping
