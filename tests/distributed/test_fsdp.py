"""Sharded training (FSDP2) on two ranks against one process with the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from distributed.launch import launch
from distributed.test_ddp import uneven
from distributed.training import Network, build, data, errors, shard, train
from steelyard.errors import SharedError

# Not looked up there: every process that collects tests would import it, for two seconds, and one runs these.
FULLY_SHARD = dist.is_available() and torch.__version__ >= (2, 6)
pytestmark = [
    pytest.mark.skipif(not FULLY_SHARD, reason="fully_shard came with torch 2.6"),
    pytest.mark.takes(
        "ranks are processes, which import torch; the first test of a file waits for all that they train"
    ),
]

METHODS = [
    "uw",
    "equal",
    "famo",
    "mgda",
    "inverse-norm(heads=plain)",
    "pcgrad",
    "upgrad",
    "graddrop",
    "db-mtl",
]
AT_TRUNK = ["mgda", "upgrad", "db-mtl", "adatask"]
SHARDINGS = ["whole", "parts", "trunk only"]
LOOKS = ["mgda(look=last)", "upgrad(look=last)", "pcgrad(look=trunk)", "db-mtl(look=last)"]
"""Read at parameters that the graph shows, gathered for the pass, where those of the modules are in pieces."""
DEEP = [*SHARDINGS, "every layer"]


class Deep(Network):
    """A trunk of two layers and a norm."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh()
        self.trunk = nn.Sequential(*layers).double()


def wrap(network: Network, sharding: str) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    if sharding == "parts":
        for head in network.heads.values():
            fully_shard(head, mesh=mesh)
    if sharding == "every layer":
        for layer in network.trunk:
            if list(layer.parameters()):
                fully_shard(layer, mesh=mesh)
    if sharding in ("parts", "trunk only"):
        fully_shard(network.trunk, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def shards(rank: int, ranks: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for sharding in DEEP:
        for spec in LOOKS:
            result = train(spec, "features", rank, ranks, 4, lambda n, s=sharding: wrap(n, s), make_network=Deep)
            found[sharding, spec] = result
    result = train(LOOKS[0], "features", rank, ranks, 4, lambda n: wrap(n, "parts"), uneven, make_network=Deep)
    found["look", "uneven"] = result
    for sharding in SHARDINGS:
        for spec in METHODS:
            result = train(spec, "features", rank, ranks, 4, lambda network, s=sharding: wrap(network, s))
            found[sharding, spec] = result
        for spec in AT_TRUNK if sharding == "whole" else ():
            found["trunk", spec] = train(spec, "trunk", rank, ranks, 4, lambda network: wrap(network, "whole"))
        found[sharding, "uneven"] = train(
            "uw", "features", rank, ranks, 4, lambda network, s=sharding: wrap(network, s), mask=uneven
        )
        if sharding == "whole":
            continue
        network = Network()
        model = wrap(network, sharding)
        balancer = build("mgda")
        inputs, targets = data(0)
        _, outputs = model(inputs[shard(rank, ranks)])
        losses = {task: each.mean() for task, each in errors(outputs, targets, shard(rank, ranks)).items()}
        try:
            balancer(losses, shared=network.trunk)
        except SharedError as error:
            found[sharding, "refused"] = str(error)
        features, outputs = model(inputs[shard(rank, ranks)])
        losses = {task: each.mean() for task, each in errors(outputs, targets, shard(rank, ranks)).items()}
        try:
            balancer(losses, shared=features, look=network.trunk)
        except SharedError as error:
            found[sharding, "layer refused"] = str(error)
    return found


@pytest.fixture(scope="module")
def two() -> list[dict]:
    return launch(shards, 2)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("spec", METHODS)
def test_features_are_exact(two: list[dict], spec: str, sharding: str) -> None:
    alone = train(spec, "features", steps=4)
    for found in two:
        for what in ("weights", "values", "parameters"):
            assert torch.allclose(found[sharding, spec][what], alone[what], rtol=1e-8, atol=1e-10), what


@pytest.mark.parametrize("sharding", DEEP)
@pytest.mark.parametrize("spec", LOOKS)
def test_a_look_behind_features_is_exact(two: list[dict], spec: str, sharding: str) -> None:
    alone = train(spec, "features", steps=4, make_network=Deep)
    for found in two:
        for what in ("weights", "values", "parameters"):
            assert torch.allclose(found[sharding, spec][what], alone[what], rtol=1e-8, atol=1e-10), what


def test_a_look_on_a_rank_without_labels_for_a_task(two: list[dict]) -> None:
    alone = train(LOOKS[0], "features", steps=4, mask=uneven, make_network=Deep)
    for found in two:
        assert torch.allclose(found["look", "uneven"]["parameters"], alone["parameters"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_rank_without_labels_for_a_task(two: list[dict], sharding: str) -> None:
    """It goes through that head all the same, whose parameters the ranks exchange."""
    alone = train("uw", "features", steps=4, mask=uneven)
    for found in two:
        result = found[sharding, "uneven"]["parameters"]
        assert torch.allclose(result, alone["parameters"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("spec", AT_TRUNK)
def test_a_trunk_that_stays_in_one_piece_until_the_backward_is_exact(two: list[dict], spec: str) -> None:
    """The root's own parameters are not resharded after the forward."""
    alone = train(spec, "trunk", steps=4)
    for found in two:
        assert torch.allclose(found["trunk", spec]["parameters"], alone["parameters"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sharding", SHARDINGS[1:])
def test_a_sharded_trunk_is_refused(two: list[dict], sharding: str) -> None:
    for found in two:
        assert "pass the tensor that the task heads read" in found[sharding, "refused"]


@pytest.mark.parametrize("sharding", SHARDINGS[1:])
def test_a_sharded_layer_is_refused(two: list[dict], sharding: str) -> None:
    for found in two:
        assert "look='last' and look='trunk' find them" in found[sharding, "layer refused"]
