"""A balancer called where nothing can be balanced: own words, for every registered method at every place it reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import steelyard
from cells import every
from steelyard.errors import LossError, StateError
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b"]


def build(name: str) -> steelyard.Balancer:
    return steelyard.make(name, TASKS, **({"main": "a"} if "main" in options_of(method_class(name)) else {}))


PLACES = [
    (name, place)
    for name in method_names()
    for place in sorted(build(name).where if build(name).needs_shared else {"features"})
]


class Network:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})

    def losses(self, x: Tensor, trunk: dict[str, Tensor] | None = None) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(x) if trunk is None else functional_call(self.trunk, trunk, (x,))
        return {task: head(features).square().mean() for task, head in self.heads.items()}, features

    def call(self, balancer: steelyard.Balancer, place: str, losses: dict[str, Tensor], features: Tensor) -> Tensor:
        shared: Any = self.trunk if place == "trunk" else features
        return balancer(losses, shared=shared, again=lambda *_, **__: losses, probes=[losses, losses])


X = torch.linspace(-1, 1, 15).reshape(5, 3)


@every(("name", "place"), PLACES)
def test_after_a_backward_pass(name: str, place: str) -> None:
    network = Network()
    losses, features = network.losses(X)
    sum(losses.values()).backward()
    with pytest.raises(LossError, match=r"backward\(\) has been called through it already. Call the balancer first"):
        network.call(build(name), place, losses, features)


@every(("name", "place"), [each for each in PLACES if build(each[0]).needs_shared])
def test_after_a_backward_pass_of_a_later_step(name: str, place: str) -> None:
    """Where gradients are read: the others leave it to torch, whose words come with the user's own ``backward()``."""
    network, balancer = Network(), build(name)
    network.call(balancer, place, *network.losses(X))
    if balancer.needs_after:
        balancer.observe(after=network.losses(X)[0])
    losses, features = network.losses(X)
    sum(losses.values()).backward()
    with pytest.raises(LossError, match="the graph of a loss is gone"):
        network.call(balancer, place, losses, features)


@every(("name", "place"), PLACES)
def test_inside_transforms_and_on_meta(name: str, place: str) -> None:
    network, balancer = Network(), build(name)

    def by_parameters(trunk: dict[str, Tensor]) -> Tensor:
        return network.call(balancer, place, *network.losses(X, trunk))

    with pytest.raises(LossError, match=r"'a' comes from inside a transform of torch.func.*outside the transform"):
        grad(by_parameters)(dict(network.trunk.named_parameters()))
    with pytest.raises(LossError, match=r"'a' comes from inside a transform of torch.func"):
        vmap(lambda x: network.call(balancer, place, *network.losses(x)))(X)
    network.trunk.to("meta")
    network.heads.to("meta")
    with pytest.raises(LossError, match=r"'a' lies on the meta device.*to_empty"):
        network.call(balancer, place, *network.losses(X.to("meta")))
    balancer.eval()
    assert balancer(network.losses(X.to("meta"))[0]).is_meta, "a dry run of shapes"


def test_in_a_graph_that_must_be_whole() -> None:
    balancer, network = build("uw"), Network()

    def step(x: Tensor) -> Tensor:
        losses, features = network.losses(x)
        return network.call(balancer, "features", losses, features)

    with pytest.raises(RuntimeError, match=r"balancer decides on the host.*call the balancer outside"):
        torch.compile(step, fullgraph=True, backend="eager")(X)


class WithBalancer(nn.Module):
    """A model that balances its own losses."""

    def __init__(self, method: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.heads = nn.Linear(3, 4), nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})
        self.balancer = build(method)

    def forward(self, x: Tensor) -> Tensor:
        z = self.trunk(x).tanh()
        return self.balancer({task: head(z).square().mean() for task, head in self.heads.items()}, shared=z)


def replica_of(model: nn.Module) -> nn.Module:
    """As `nn.DataParallel` makes one for each GPU, without the GPUs."""
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, twin in copies.items():
        for name, child in module._modules.items():
            twin._modules[name] = copies[child]
        for name, parameter in module._parameters.items():
            setattr(twin, name, parameter * 1.0)
    return copies[model]


@every("name", ["uw", "ema", "mgda"])
def test_inside_data_parallel(name: str) -> None:
    model = WithBalancer(name)
    before = model.balancer.steps
    with pytest.raises(StateError, match=r"nn\.DataParallel.*outside of it.*DistributedDataParallel"):
        replica_of(model)(X)
    assert model.balancer.steps == before
    plain = model.eval()(X)
    assert torch.equal(replica_of(model)(X), plain), "a validation pass is a plain sum, in replicas too"
    model.train()
    nn.DataParallel(model)(X).backward()  # a single device has no replicas
    assert model.balancer.steps == before + 1


def test_checkpointed_blocks_are_not_run_to_see_whether_they_are_there() -> None:
    network, runs = Network(), []
    network.trunk.register_forward_hook(lambda *_: runs.append(1))
    hidden = torch.utils.checkpoint.checkpoint(network.trunk, X, use_reentrant=False)
    steelyard.make("equal", ["a"])({"a": hidden.sum()})
    assert len(runs) == 1


class TestTrunksInAList:
    def parts(self) -> tuple[nn.Linear, nn.Linear, dict[str, nn.Module]]:
        torch.manual_seed(0)
        return nn.Linear(3, 4), nn.Linear(4, 4), {task: nn.Linear(4, 1) for task in TASKS}

    @every("name", [name for name, place in PLACES if place == "trunk"])
    def test_stand_for_their_parameters(self, name: str) -> None:
        encoder, neck, heads = self.parts()
        weights = []
        for shared in (
            [*encoder.parameters(), *neck.parameters()],
            [encoder, neck],
            (encoder, neck),
            nn.ModuleList([encoder, neck]),
            [nn.ModuleList([encoder]), neck, neck],
            [encoder, *neck.parameters()],
        ):
            for at_construction in (False, True):
                balancer = build(name)
                if at_construction:
                    main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
                    balancer = steelyard.make(name, TASKS, shared=shared, **main)
                features = neck(encoder(X))
                losses = {task: head(features).square().mean() for task, head in heads.items()}
                given = {} if at_construction else {"shared": shared}
                balancer(losses, probes=[losses, losses], again=lambda *_, losses=losses, **__: losses, **given)
                weights.append(balancer.last_weights)
        assert all(torch.equal(each, weights[0]) for each in weights)
