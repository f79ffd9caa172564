"""What surrounds the balancer in an ordinary loop: clipping, checkpointing, averaged weights, `zero_grad`, closures."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import steelyard
from helpers import TwoLayer, task_gradients, weighted_sum
from steelyard.errors import OptionError, SharedError

Losses = Callable[[], tuple[dict[str, Tensor], Tensor]]
TASKS = {"a": 1.0, "b": 5.0}
PLACES = [("ema", "none"), ("mgda", "features"), ("db-mtl", "features"), ("mgda", "trunk"), ("db-mtl", "trunk")]


def call(balancer: steelyard.Balancer, network: TwoLayer, where: str) -> Tensor:
    losses, features = network.losses()
    result: Tensor = balancer(losses, shared={"none": None, "features": features, "trunk": network.trunk}[where])
    return result


def gradients(network: TwoLayer) -> Tensor:
    parameters = [*network.trunk_parameters(), *network.head_parameters()]
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


@pytest.mark.parametrize(("spec", "where"), PLACES)
def test_clipping_sees_the_balanced_gradient(spec: str, where: str) -> None:
    network = TwoLayer(TASKS)
    twin = copy.deepcopy(network)
    balancer, again = steelyard.make(spec, list(TASKS)), steelyard.make(spec, list(TASKS))
    call(balancer, network, where).backward()
    call(again, twin, where).backward()
    whole = gradients(twin)
    norm = nn.utils.clip_grad_norm_([*network.trunk_parameters(), *network.head_parameters()], 0.01)
    assert torch.allclose(norm, whole.norm(), rtol=1e-12)
    assert torch.allclose(gradients(network), whole * (0.01 / whole.norm()), rtol=1e-4)


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize(("spec", "where"), PLACES)
def test_zero_grad_either_way(spec: str, where: str, to_none: bool) -> None:
    found = []
    for way in (to_none, True):
        network = TwoLayer(TASKS)
        parameters = [*network.trunk_parameters(), *network.head_parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=0.01)
        balancer = steelyard.make(spec, list(TASKS)).attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=way)
            call(balancer, network, where).backward()
            optimizer.step()
        found.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    assert torch.equal(*found)


@pytest.mark.parametrize(("spec", "where"), PLACES)
def test_an_average_of_the_weights_is_that_of_a_loop_without_us(spec: str, where: str) -> None:
    """The balancer adds no parameter to average, and leaves no hook that a copy would carry along."""
    network = TwoLayer(TASKS)
    optimizer = torch.optim.SGD(network.trunk_parameters(), lr=0.1)
    balancer = steelyard.make(spec, list(TASKS)).attach(optimizer)
    call(balancer, network, where).backward()
    average = AveragedModel(network.trunk, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    expected = [parameter.detach().clone() for parameter in network.trunk_parameters()]
    for number in range(3):
        optimizer.zero_grad()
        call(balancer, network, where).backward()
        optimizer.step()
        average.update_parameters(network.trunk)
        expected = [
            now.detach().clone() if number == 0 else torch.lerp(now.detach(), was, 0.5)
            for now, was in zip(network.trunk_parameters(), expected, strict=True)
        ]
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(average.module.parameters(), expected, strict=True))
    average(network.inputs).sum().backward()


class TestCheckpointing:
    def network(
        self, reentrant: bool | None
    ) -> tuple[nn.Module, nn.Module, Callable[[], tuple[dict[str, Tensor], Tensor]]]:
        torch.manual_seed(0)
        first, body = nn.Linear(6, 9).double(), nn.Sequential(nn.Linear(9, 9), nn.Tanh()).double()
        heads = nn.ModuleDict({task: nn.Linear(9, 3) for task in TASKS}).double()
        x = torch.randn(16, 6).double()

        def losses() -> tuple[dict[str, Tensor], Tensor]:
            z = first(x)
            z = body(z) if reentrant is None else checkpoint(body, z, use_reentrant=reentrant)
            return {task: scale * (heads[task](z) - 1).square().mean() for task, scale in TASKS.items()}, z

        return nn.Sequential(first, body), heads, losses

    def arriving(self, spec: str, where: str, reentrant: bool | None) -> Tensor:
        trunk, heads, losses = self.network(reentrant)
        found, z = losses()
        steelyard.make(spec, list(TASKS))(found, shared={"none": None, "features": z, "trunk": trunk}[where]).backward()
        return torch.cat([parameter.grad.flatten() for parameter in (*trunk.parameters(), *heads.parameters())])

    @pytest.mark.parametrize(("spec", "where"), PLACES)
    def test_non_reentrant_is_exact(self, spec: str, where: str) -> None:
        assert torch.allclose(self.arriving(spec, where, False), self.arriving(spec, where, None), rtol=1e-9)

    @pytest.mark.parametrize(("spec", "where"), [place for place in PLACES if place[1] != "trunk"])
    def test_reentrant_is_exact_at_features(self, spec: str, where: str) -> None:
        assert torch.allclose(self.arriving(spec, where, True), self.arriving(spec, where, None), rtol=1e-9)

    @pytest.mark.parametrize("spec", ["mgda", "max-norm(beta=0)", "db-mtl", "moco"])
    def test_reentrant_is_refused_at_the_trunk(self, spec: str) -> None:
        """Torch would leave the block's parameters out in silence."""
        with pytest.raises(SharedError, match=r"reentrant activation checkpointing.*use_reentrant=False"):
            self.arriving(spec, "trunk", True)

    def test_reentrant_in_a_head_is_refused_at_features(self) -> None:
        head = nn.Linear(4, 2)
        z = nn.Linear(3, 4)(torch.randn(5, 3))
        losses = {task: checkpoint(head, z, use_reentrant=True).square().mean() for task in TASKS}
        with pytest.raises(SharedError, match="use_reentrant=False"):
            steelyard.make("mgda", list(TASKS))(losses, shared=z)


class TestClosures:
    @pytest.mark.parametrize(
        ("spec", "where"), [("ema", "none"), ("uw", "none"), ("mgda", "features"), ("inverse-norm", "trunk")]
    )
    def test_an_lbfgs_step_minimises_one_function(self, spec: str, where: str) -> None:
        """Weights of the first evaluation hold for the whole step; the value is then ``Σ w_k L_k``."""
        network = TwoLayer(TASKS)
        parameters = [*network.trunk_parameters(), *network.head_parameters()]
        optimizer = torch.optim.LBFGS(parameters, max_iter=8, line_search_fn="strong_wolfe")
        balancer = steelyard.make(spec, list(TASKS)).attach(optimizer)
        twin = copy.deepcopy(network)
        weights: list[Tensor] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = call(balancer, network, where)
            loss.backward()
            weights.append(balancer.last_weights)
            return loss

        optimizer.step(closure)
        assert len(weights) > 2
        assert all(torch.equal(each, weights[0]) for each in weights)
        held = dict(zip(TASKS, weights[0].tolist(), strict=True))

        others = [*twin.trunk_parameters(), *twin.head_parameters()]
        fixed = torch.optim.LBFGS(others, max_iter=8, line_search_fn="strong_wolfe")

        def weighted() -> Tensor:
            fixed.zero_grad()
            losses, _ = twin.losses()
            loss = torch.stack([held[task] * losses[task] for task in TASKS]).sum()
            loss.backward()
            return loss

        fixed.step(weighted)
        assert balancer.steps == 1
        assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(parameters, others, strict=True))

    @pytest.mark.parametrize("where", ["features", "trunk"])
    def test_plain_heads_are_refused_by_name(self, where: str) -> None:
        network = TwoLayer(TASKS)
        optimizer = torch.optim.LBFGS(network.trunk_parameters(), max_iter=4)
        balancer = steelyard.make("db-mtl(beta=0)", list(TASKS)).attach(optimizer)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = call(balancer, network, where)
            loss.backward()
            return loss

        with pytest.raises(OptionError, match="Use heads='weighted'"):
            optimizer.step(closure)


@pytest.mark.parametrize("name", ["inverse-norm(beta=0)", "mgda", "upgrad"])
def test_what_arrives_at_the_trunk_has_the_length_that_the_gramian_says(name: str) -> None:
    """``‖Σ w_k g_k‖² = wᵀ G w``: nothing reached the trunk around the place where it was read."""
    network = TwoLayer(TASKS)
    balancer = steelyard.make(name, list(TASKS))
    plain = task_gradients(network.losses()[0], network.trunk_parameters())
    call(balancer, network, "trunk").backward()
    weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
    arrived = sum(float(parameter.grad.square().sum()) for parameter in network.trunk_parameters())
    expected = sum(float(each.square().sum()) for each in weighted_sum(weights, plain))
    metrics = balancer.metrics()
    by_gramian = sum((weights[task] * metrics[f"norm/{task}"]) ** 2 for task in TASKS)
    by_gramian += 2 * weights["a"] * weights["b"] * metrics["norm/a"] * metrics["norm/b"] * metrics["cosine/a,b"]
    assert arrived == pytest.approx(expected, rel=1e-9)
    assert arrived == pytest.approx(by_gramian, rel=1e-9)
