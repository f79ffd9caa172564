"""Losses that read the trunk at a depth of their own, with plain heads: without a head, and heads at several depths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import steelyard
from cells import every
from helpers import task_gradients, weighted_sum
from steelyard.method_registry import method_class, method_names, options_of

WIDTH = 6


class Network(nn.Module):
    """Three layers of trunk, a head for each of two tasks, and what a third loss may compare with."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x, self.y = torch.randn(8, WIDTH, dtype=dtype), torch.randn(8, WIDTH, dtype=dtype)
        self.trunk = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)]).to(dtype)
        self.heads = nn.ModuleList([nn.Linear(WIDTH, 2) for _ in range(3)]).to(dtype)

    def depths(self) -> list[Tensor]:
        found = [self.x]
        for layer in self.trunk:
            found.append(layer(found[-1]).tanh())
        return found[1:]


def contrastive(net: Network, z: list[Tensor]) -> Tensor:
    similar = F.normalize(z[-1], dim=1) @ F.normalize(z[-1], dim=1).T
    return F.cross_entropy(5 * similar, torch.arange(8).roll(1))


def distillation(net: Network, z: list[Tensor]) -> Tensor:
    return (z[-1] - net.y).square().mean()


def penalty_within(net: Network, z: list[Tensor]) -> Tensor:
    return z[0].abs().mean()


def penalties_everywhere(net: Network, z: list[Tensor]) -> Tensor:
    return sum(each.square().mean() for each in z) + sum(p.square().sum() for p in net.trunk.parameters())


def shallow_head(net: Network, z: list[Tensor]) -> Tensor:
    return net.heads[2](z[1]).square().mean()


def heads_at_all_depths(net: Network, z: list[Tensor]) -> Tensor:
    return sum(net.heads[2](each).square().mean() for each in z)


def deep_layer_of_its_own(net: Network, z: list[Tensor]) -> Tensor:
    """The third layer, also behind what this task alone does to the features."""
    own = z[-1].relu()
    return net.heads[2](own).square().mean() + net.heads[2](net.trunk[2](own)).square().mean()


def another_tasks_loss_too(net: Network, z: list[Tensor]) -> Tensor:
    return net.heads[0](z[-1]).square().mean() + contrastive(net, z)


THIRD = [
    *(contrastive, distillation, penalty_within, penalties_everywhere),
    *(shallow_head, heads_at_all_depths, deep_layer_of_its_own, another_tasks_loss_too),
]


def losses_of(net: Network, third: Callable[[Network, list[Tensor]], Tensor], ratio: float) -> dict[str, Tensor]:
    z = net.depths()
    return {
        "a": net.heads[0](z[-1]).square().mean(),
        "b": ratio * (net.heads[1](z[-1]) - net.y[:, :2]).abs().mean(),
        "c": third(net, z),
    }


def error(net: Network, expected: list[list[Tensor]], places: list[list[nn.Parameter]]) -> float:
    """The largest relative error of what arrived at the trunk and at the heads."""
    errors = []
    for wanted, parameters in zip(expected, places, strict=True):
        arrived = torch.cat([(p.new_zeros(p.shape) if p.grad is None else p.grad).flatten() for p in parameters])
        target = torch.cat([gradient.flatten() for gradient in wanted])
        errors.append(float((arrived.double() - target).norm() / target.norm()))
    return max(errors)


@pytest.mark.parametrize("foreign", [False, True], ids=["alone", "with a loss beside the balancer"])
@pytest.mark.parametrize(("dtype", "ratio", "tolerance"), [(torch.float64, 1.0, 1e-10), (torch.float32, 1e6, 1e-5)])
@every("third", THIRD)
def test_plain_heads_are_exact(
    third: Callable[[Network, list[Tensor]], Tensor], dtype: torch.dtype, ratio: float, tolerance: float, foreign: bool
) -> None:
    net = Network(dtype)
    trunk, heads = list(net.trunk.parameters()), list(net.heads.parameters())
    losses = losses_of(net, third, ratio)
    balancer = steelyard.make("mgda(normalise=l2)", list(losses), heads="plain")
    total = balancer(losses, shared=net.trunk)
    weights = dict(zip(losses, balancer.last_weights.tolist(), strict=True))
    ones = dict.fromkeys(losses, 1.0)
    if foreign:
        own = net.depths()[-1].exp().mean() if ratio == 1 else 1e3 * net.depths()[-1].exp().mean()
        losses["foreign"], weights["foreign"], ones["foreign"] = own, 1.0, 1.0
        total = total + own
    total.backward()
    reference = Network(torch.float64)
    reference.load_state_dict(net.state_dict())
    reference.x, reference.y = net.x.double(), net.y.double()
    exact = losses_of(reference, third, ratio)
    if foreign:
        exact["foreign"] = (1.0 if ratio == 1 else 1e3) * reference.depths()[-1].exp().mean()
    at_trunk = task_gradients(exact, list(reference.trunk.parameters()))
    at_heads = task_gradients(exact, list(reference.heads.parameters()))
    expected = [weighted_sum(weights, at_trunk), weighted_sum(ones, at_heads)]
    assert error(net, expected, [trunk, heads]) < tolerance


def test_a_loss_of_the_user_through_the_same_features_is_kept() -> None:
    """The same tensors, at both depths, get gradients from beside the balancer."""
    net = Network(torch.float64)
    z = net.depths()
    losses = {"a": net.heads[0](z[-1]).square().mean(), "b": 9 * contrastive(net, z), "c": shallow_head(net, z)}
    balancer = steelyard.make("mgda(normalise=l2)", list(losses), heads="plain")
    own = z[1].exp().mean() + z[-1].sin().sum()
    parameters = list(net.trunk.parameters())
    rows = task_gradients({**losses, "own": own}, parameters)
    (balancer(losses, shared=net.trunk) + own).backward()
    weights = {**dict(zip(losses, balancer.last_weights.tolist(), strict=True)), "own": 1.0}
    assert error(net, [weighted_sum(weights, rows)], [parameters]) < 1e-10


AT_TRUNK = [name for name in method_names() if "trunk" in method_class(name).where]


@pytest.mark.parametrize("third", [contrastive, shallow_head])
@every("name", AT_TRUNK)
def test_every_method_takes_them(name: str, third: Callable[[Network, list[Tensor]], Tensor]) -> None:
    net = Network(torch.float64)
    options = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    cls = method_class(name)
    if cls.reads in ("cross_gramian", "lookahead"):
        pytest.skip("brings further batches; its scalar is carried by the same code")
    balancer = steelyard.make(name, ["a", "b", "c"], heads="plain", **options)
    losses = losses_of(net, third, 3.0)
    parameters = list(net.trunk.parameters())
    rows = task_gradients(losses, parameters)
    heads = task_gradients(losses, list(net.heads.parameters()))
    balancer(losses, shared=net.trunk).backward()
    if balancer.looks_for(True) != "rows":
        weights = dict(zip(losses, balancer.last_weights.tolist(), strict=True))
        assert error(net, [weighted_sum(weights, rows)], [parameters]) < 1e-9
    if not balancer.loss_stages() and name != "log":  # whose slopes plain heads receive
        assert error(net, [weighted_sum(dict.fromkeys(losses, 1.0), heads)], [list(net.heads.parameters())]) < 1e-9


def test_dropped_losses_and_tasks_that_are_absent() -> None:
    net = Network(torch.float64)
    losses = losses_of(net, contrastive, 1.0)
    losses["b"] = losses["b"] * float("nan")
    balancer = steelyard.make("mgda(normalise=l2)", ["a", "b", "c", "d"], heads="plain", on_nonfinite="drop_task")
    found = {task: loss for task, loss in losses.items() if task != "b"}
    parameters = list(net.trunk.parameters())
    rows = task_gradients(found, parameters)
    balancer(losses, shared=net.trunk).backward()
    weights = dict(zip("abcd", balancer.last_weights.tolist(), strict=True))
    assert error(net, [weighted_sum({task: weights[task] for task in found}, rows)], [parameters]) < 1e-10


def test_float16_keeps_what_is_small() -> None:
    """Rehearsed below what float16 holds, and real behind a gradient scaler."""
    net = Network(torch.float64).half()
    net.x, net.y = net.x.half(), net.y.half()
    losses = {task: loss.float() * 1e-5 for task, loss in losses_of(net, penalty_within, 1.0).items()}
    balancer = steelyard.make("mgda(normalise=l2)", list(losses), heads="plain")
    (65536 * balancer(losses, shared=net.trunk)).backward()
    reference = net.double()
    weights = dict(zip(losses, balancer.last_weights.tolist(), strict=True))
    parameters = list(reference.trunk.parameters())
    arrived = torch.cat([p.grad.double().flatten() for p in parameters]) / 65536
    reference.x, reference.y = net.x.double(), net.y.double()
    rows = task_gradients(
        {task: loss * 1e-5 for task, loss in losses_of(reference, penalty_within, 1.0).items()}, parameters
    )
    wanted = torch.cat([gradient.flatten() for gradient in weighted_sum(weights, rows)])
    assert float((arrived - wanted).norm() / wanted.norm()) < 0.02
