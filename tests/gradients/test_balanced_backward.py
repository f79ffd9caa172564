"""The gradient that *arrives*: ``Σ w_k ∇L_k`` at the trunk, at the heads what was asked for, at any ratio of norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import TwoLayer, task_gradients, weighted_sum
from steelyard.base.observation import Balance, Seen
from steelyard.base.state import State

WEIGHTS = {"a": 1e-6, "b": 0.7, "c": 1.0}


class Given(steelyard.Balancer):
    """Fixed multipliers, heads plain, so that only the carrier is under test."""

    name = "given"
    reads = "norms"
    default_heads = "plain"

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return torch.tensor([WEIGHTS[task] for task in seen.tasks], dtype=torch.float64)


def relative_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    error = sum(float((a.double() - e).square().sum()) for a, e in zip(actual, expected, strict=True))
    size = sum(float(e.square().sum()) for e in expected)
    return (error / size) ** 0.5


def arriving(network: TwoLayer, balancer: steelyard.Balancer, scale: float = 1.0, **call: Any) -> list[Tensor]:
    losses, features = network.losses()
    for parameter in (*network.trunk_parameters(), *network.head_parameters()):
        parameter.grad = None
    (scale * balancer(losses, shared=features, **call)).backward()
    return [parameter.grad for parameter in network.trunk_parameters()]


@pytest.mark.parametrize("seed", range(4))
def test_trunk_gradient_is_exact_in_float32_at_a_norm_ratio_of_a_million(seed: int) -> None:
    network = TwoLayer({"a": 1e6, "b": 1.0, "c": 1e-2}, torch.float32, seed)
    twin = network.in_double()
    losses, _ = twin.losses()
    expected = weighted_sum(WEIGHTS, task_gradients(losses, twin.trunk_parameters()))
    assert relative_error(arriving(network, Given(list(WEIGHTS))), expected) < 1e-5


def test_heads_stay_plain_while_the_trunk_is_weighted() -> None:
    network = TwoLayer({"a": 1e3, "b": 1.0, "c": 1e-2})
    losses, _ = network.losses()
    plain = task_gradients(losses, network.head_parameters())
    arriving(network, Given(list(WEIGHTS)))
    expected = weighted_sum(dict.fromkeys(WEIGHTS, 1.0), plain)
    assert relative_error([p.grad for p in network.head_parameters()], expected) < 1e-12


def test_bfloat16_at_a_norm_ratio_of_a_hundred_is_off_by_its_own_rounding_only() -> None:
    weights = {"a": 1e-2, "b": 0.7, "c": 1.0}
    network = TwoLayer({"a": 100.0, "b": 1.0, "c": 0.5}, torch.bfloat16)

    class Weighted(Given):
        def weigh(self, seen: Seen, state: State) -> Tensor:
            return torch.tensor([weights[task] for task in seen.tasks], dtype=torch.float64)

    # The look runs in bfloat16, so its own gradients are the reference: what arrives adds no cancellation to them.
    losses, features = network.losses()
    at_features = task_gradients(losses, [features])  # type: ignore[list-item]
    direction = weighted_sum(weights, at_features)[0]
    seen: list[Tensor] = []
    losses, features = network.losses()
    result = Weighted(list(weights))(losses, shared=features)
    features.register_hook(seen.append)
    result.backward()
    error = float((seen[0].double() - direction).norm() / direction.norm())
    assert error < 2 * torch.finfo(torch.bfloat16).eps


def test_an_upstream_factor_scales_everything() -> None:
    network = TwoLayer(dict.fromkeys(WEIGHTS, 1.0))
    once = arriving(network, Given(list(WEIGHTS)))
    scaled = arriving(network, Given(list(WEIGHTS)), scale=65536.0)
    assert relative_error([g / 65536 for g in scaled], [g.double() for g in once]) < 1e-12


def test_other_losses_through_the_features_keep_their_gradient() -> None:
    network = TwoLayer({"a": 10.0, "b": 1.0, "c": 1.0})
    losses, features = network.losses()
    tasks = task_gradients(losses, network.trunk_parameters())
    other = task_gradients({"penalty": 0.3 * features.square().mean()}, network.trunk_parameters())
    balanced = Given(list(WEIGHTS))(losses, shared=features)
    (balanced + 0.3 * features.square().mean()).backward()
    expected = weighted_sum({**WEIGHTS, "penalty": 1.0}, {**tasks, **other})
    assert relative_error([p.grad for p in network.trunk_parameters()], expected) < 1e-12


def test_losses_that_bypass_the_features_reach_the_trunk_plainly() -> None:
    network = TwoLayer({"a": 1.0, "b": 1.0, "c": 1.0})
    losses, features = network.losses()
    bypass = network.trunk(network.inputs).square().mean()  # the same trunk, another pass
    tasks = task_gradients(losses, network.trunk_parameters())
    around = task_gradients({"bypass": bypass}, network.trunk_parameters())
    losses["a"] = losses["a"] + bypass
    Given(list(WEIGHTS))(losses, shared=features).backward()
    expected = weighted_sum({**WEIGHTS, "bypass": 1.0}, {**tasks, **around})
    assert relative_error([p.grad for p in network.trunk_parameters()], expected) < 1e-12


def test_a_second_backward_through_the_same_graph_gives_the_same_gradient() -> None:
    network = TwoLayer(dict.fromkeys(WEIGHTS, 1.0))
    losses, features = network.losses()
    result = Given(list(WEIGHTS))(losses, shared=features)
    first = torch.autograd.grad(result, network.trunk_parameters(), retain_graph=True)
    plain = torch.autograd.grad(losses["a"], network.trunk_parameters(), retain_graph=True)
    expected = task_gradients(network.losses()[0], network.trunk_parameters())["a"]
    assert relative_error(list(plain), expected) < 1e-12, "a backward that is not the balancer's must pass unchanged"
    second = torch.autograd.grad(result, network.trunk_parameters())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_several_feature_tensors_are_one_gradient() -> None:
    torch.manual_seed(0)
    trunk = nn.Linear(4, 8).double()
    heads = {task: nn.Linear(4, 1).double() for task in WEIGHTS}
    x = torch.randn(10, 4).double()

    def losses() -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        left, right = trunk(x).tanh().split(4, dim=1)
        found = {task: heads[task](left).square().mean() for task in ("a", "b")}
        found["c"] = heads["c"](right).square().mean()  # depends on one of the two only
        return found, (left, right)

    plain, _ = losses()
    expected = weighted_sum(WEIGHTS, task_gradients(plain, list(trunk.parameters())))
    found, features = losses()
    Given(list(WEIGHTS))(found, shared=features).backward()
    assert relative_error([p.grad for p in trunk.parameters()], expected) < 1e-12


def test_an_element_wise_direction_arrives_as_it_is() -> None:
    class Signs(steelyard.Balancer):
        name = "signs"
        reads = "rows"
        default_heads = "plain"

        def weigh(self, seen: Seen, state: State) -> Balance:
            assert seen.rows is not None
            return Balance(torch.full_like(seen.losses, 2.0), rows=seen.rows.clamp(min=0))

    network = TwoLayer({"a": 3.0, "b": 1.0})
    losses, features = network.losses()
    at_features = task_gradients(losses, [features])  # type: ignore[list-item]
    expected = 2 * sum(rows[0].clamp(min=0) for rows in at_features.values())
    arrived: list[Tensor] = []
    result = Signs(["a", "b"])(losses, shared=features)
    features.register_hook(arrived.append)
    result.backward()
    assert torch.equal(arrived[0], expected)


def test_float16_gradients_of_1e_minus_9_do_not_vanish_in_the_look() -> None:
    """Seeded with 65536 and divided again, as a gradient scaler does for the backward pass."""
    features = torch.randn(8, 4).half().requires_grad_()
    losses = {task: (features.float() * scale).sum() * 1e-9 for task, scale in (("a", 1.0), ("b", 3.0))}
    balancer = steelyard.make("inverse-norm(beta=0)", ["a", "b"])
    balancer(losses, shared=features)
    norms = [balancer.metrics()[f"norm/{task}"] for task in ("a", "b")]
    assert norms == pytest.approx([1e-9 * 32**0.5, 3e-9 * 32**0.5], rel=2e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e25])
def test_norms_and_gramian_are_scale_free(scale: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(8, 5).requires_grad_()
    base = {task: (features * torch.randn(8, 5)).sum() for task in ("a", "b", "c")}
    found = {}
    for factor in (1.0, scale):
        balancer = steelyard.make("mgda", ["a", "b", "c"])
        balancer({task: loss * factor for task, loss in base.items()}, shared=features)
        found[factor] = balancer.last_weights, balancer.metrics()
    assert torch.allclose(found[1.0][0], found[scale][0], rtol=1e-4)
    for task in ("a", "b", "c"):
        assert found[scale][1][f"norm/{task}"] == pytest.approx(scale * found[1.0][1][f"norm/{task}"], rel=1e-5)


def test_the_carrier_supports_create_graph() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    balancer = steelyard.make("equal", ["a", "b"])
    result = balancer({"a": x**3, "b": x**2})
    (gradient,) = torch.autograd.grad(result, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient, x)
    assert gradient.item() == pytest.approx(12 + 4)
    assert second.item() == pytest.approx(12 + 2)


def _many_heads(dtype: torch.dtype, tasks: int, spread: float, foreign: float) -> tuple[float, float]:
    """How far what arrives at the features is from ``Σ w d`` and a foreign gradient, and that gradient's length."""
    generator = torch.Generator().manual_seed(tasks)
    common = torch.randn(16, generator=generator)
    heads = (common + spread * torch.randn(tasks, 16, generator=generator)).to(dtype)
    features = torch.randn(8, 16, generator=generator).to(dtype).requires_grad_() * 1
    losses = {str(k): (features * head).sum(1).float().mean() + 1 for k, head in enumerate(heads)}
    direct = torch.stack([torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in losses.values()])
    other = direct.sum(0).norm() * foreign * torch.ones_like(features) / features.numel() ** 0.5
    arrived: list[torch.Tensor] = []
    balancer = steelyard.make("upgrad", list(losses))
    result = balancer(losses, shared=features)
    features.register_hook(arrived.append)
    (result + (features * other).sum()).backward()
    expected = (balancer.last_weights[:, None, None] * direct.double()).sum(0) + other.double()
    return float((arrived[0].double() - expected).norm() / expected.norm()), float(other.double().norm())


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("tasks", [9, 64, 200])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_rounds_off_when_many_shares_are_added_is_not_taken_for_a_foreign_gradient(
    dtype: torch.dtype, tasks: int, spread: float
) -> None:
    error, _ = _many_heads(dtype, tasks, spread, foreign=0.0)
    assert error < 2 * torch.finfo(dtype).eps * (1 if dtype != torch.float32 else tasks)


def test_a_foreign_gradient_as_long_as_the_sum_of_many_unlike_ones_is_kept() -> None:
    """Though it is shorter than all shares of bfloat16 end to end would round off at worst."""
    error, length = _many_heads(torch.bfloat16, 64, 20.0, foreign=1.0)
    assert length > 0
    assert error < 0.3, "what is left of it is as exact as the sum"
