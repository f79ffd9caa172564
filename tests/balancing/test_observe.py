"""``look=``: gradients are read at the last layer, the trunk, or layers; the balanced one goes to ``shared=``."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import steelyard
from cells import every
from helpers import task_gradients, weighted_sum
from steelyard.errors import OptionError, SharedError, UnknownNameError
from steelyard.gradients import reading
from steelyard.testing.contract import _stage_slopes

TASKS = ("a", "b", "c")
READERS = [row.name for row in steelyard.methods() if row.reads in ("norms", "gramian")]
"""Every method that answers with weights."""
ROWS = [row.name for row in steelyard.methods() if row.reads == "rows"]
"""What makes its answer of the task gradients themselves is refused, by name."""
PROBING = [row.name for row in steelyard.methods() if row.reads == "cross_gramian"]


class Network:
    """Two layers and a norm in float64, one head for each task: linear, or too deep for factors."""

    def __init__(self, heads: str = "linear", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8), nn.LayerNorm(8), nn.Tanh()).double()
        deep = [nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in TASKS]
        self.heads = nn.ModuleList(deep if heads == "deep" else [nn.Linear(8, 2) for _ in TASKS]).double()
        self.inputs = torch.randn(12, 6).double()
        self.targets = torch.randn(len(TASKS), 12, 2).double()

    @property
    def last(self) -> list[nn.Parameter]:
        return list(self.trunk[2].parameters())

    def losses(self, features: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        z = self.trunk(self.inputs) if features is None else features
        rows = {
            task: (k + 1) * (head(z) - target).square().mean()
            for k, (task, head, target) in enumerate(zip(TASKS, self.heads, self.targets, strict=True))
        }
        return rows, z

    def gramian(self, losses: dict[str, Tensor], parameters: list[nn.Parameter]) -> Tensor:
        rows = task_gradients(losses, parameters)
        J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows.values()])
        return J @ J.T


def build(method: str, **options: Any) -> Any:
    if "main" in steelyard.method_registry.options_of(steelyard.method_registry.method_class(method)):
        options["main"] = "a"
    return steelyard.make(method, list(TASKS), generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize("head", ["linear", "deep"])
@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("carrier", ["features", "trunk"])
@every("method", READERS)
def test_weights_are_the_layers_and_the_gradient_arrives_everywhere(
    method: str, carrier: str, heads: str, head: str
) -> None:
    network = Network(head)
    losses, z = network.losses()
    at_layer = build(method, heads="weighted")
    at_layer(losses, shared=network.last)
    own = list(network.heads.parameters())
    at_trunk, at_heads = task_gradients(losses, list(network.trunk.parameters())), task_gradients(losses, own)
    balancer = build(method, heads=heads, look="last")
    balancer(losses, shared=z if carrier == "features" else network.trunk).backward()
    assert torch.allclose(balancer.last_weights, at_layer.last_weights, rtol=1e-7)
    weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
    slopes = _stage_slopes(build(method), torch.stack([loss.detach() for loss in losses.values()]))
    on_heads = weights if heads == "weighted" else dict(zip(TASKS, slopes.tolist(), strict=True))
    for parameter, wanted in zip(network.trunk.parameters(), weighted_sum(weights, at_trunk), strict=True):
        assert torch.allclose(parameter.grad, wanted, rtol=1e-9, atol=1e-12)
    for parameter, wanted in zip(own, weighted_sum(on_heads, at_heads), strict=True):
        assert torch.allclose(parameter.grad, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["last", "module", "parameters", "list", "name", "names"])
def test_ways_to_say_one_layer(form: str) -> None:
    network = Network()
    losses, z = network.losses()
    look = {
        "last": "last",
        "module": network.trunk[2],
        "parameters": network.last,
        "list": [network.trunk[2]],
        "name": "2",
        "names": ["2"],
    }[form]
    shared = network.trunk if form.startswith("name") else z
    expected = network.gramian(losses, network.last)
    for balancer, given in ((build("mgda", look=look), None), (build("mgda", look="trunk"), look)):
        balancer(losses, shared=shared, look=given)
        gramian = balancer._now.record.seen.gramian
        assert torch.allclose(gramian, expected, rtol=1e-10)


def test_a_name_is_looked_up_in_the_trunk_given_at_construction() -> None:
    network = Network()
    losses, z = network.losses()
    balancer = build("mgda", shared=network.trunk, look="2")
    balancer(losses, shared=z)
    expected = network.gramian(losses, network.last)
    assert torch.allclose(balancer._now.record.seen.gramian, expected, rtol=1e-10)


def test_the_trunk_is_all_that_lies_behind_the_features() -> None:
    network = Network()
    losses, z = network.losses()
    balancer = build("mgda", look="trunk")
    balancer(losses, shared=z)
    expected = network.gramian(losses, list(network.trunk.parameters()))
    assert torch.allclose(balancer._now.record.seen.gramian, expected, rtol=1e-10)


@pytest.mark.parametrize("look", ["features", "trunk"])
def test_a_place_that_shared_points_at_already_changes_nothing(look: str) -> None:
    network = Network()
    losses, z = network.losses()
    shared = z if look == "features" else network.trunk
    given, expected = build("pcgrad", look=look), build("pcgrad")
    given(losses, shared=shared)
    expected(losses, shared=shared)
    assert torch.equal(given.last_weights, expected.last_weights)


def test_several_features_have_a_last_layer_each() -> None:
    network = Network()
    middle = network.trunk[:2](network.inputs)
    first, second = nn.Linear(9, 8).double(), nn.Linear(9, 4).double()
    z = first(middle), second(middle).tanh()
    losses = {
        "a": network.heads[0](z[0]).square().mean(),
        "b": network.heads[1](z[0]).abs().mean() + z[1].square().mean(),
        "c": z[1].abs().mean(),
    }
    expected = network.gramian(losses, [*first.parameters(), *second.parameters()])
    for heads in ("plain", "weighted"):
        balancer = build("mgda", look="last", heads=heads)
        balancer(losses, shared=z)
        assert torch.allclose(balancer._now.record.seen.gramian, expected, rtol=1e-10)


def test_tasks_without_common_samples_are_seen_to_conflict() -> None:
    """At features their inner products are zero; nothing is warned of."""
    layer = nn.Linear(3, 3).double()
    z = layer(torch.randn(4, 3).double().repeat(2, 1))
    losses = {"a": z[:4].sum(), "b": -z[4:].sum()}
    balancer = steelyard.make("mgda", ["a", "b"], look="last")
    balancer(losses, shared=z)
    assert balancer.metrics()["cosine/a,b"] == pytest.approx(-1)


@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("carrier", ["features", "trunk"])
def test_nothing_is_looked_at_while_weights_are_held(heads: str, carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    trunk_gradients = reading.trunk_gradients

    def counted(names: Any, losses: Any, parameters: Any, *given: Any, **options: Any) -> Any:
        looks.append(len(list(parameters)))
        return trunk_gradients(names, losses, parameters, *given, **options)

    monkeypatch.setattr(reading, "trunk_gradients", counted)
    network = Network()
    balancer = build("cagrad", heads=heads, every=3, look="last")
    for step in range(4):
        losses, z = network.losses()
        at_trunk = task_gradients(losses, list(network.trunk.parameters()))
        for parameter in (*network.trunk.parameters(), *network.heads.parameters()):
            parameter.grad = None
        balancer(losses, shared=z if carrier == "features" else network.trunk).backward()
        weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
        for parameter, wanted in zip(network.trunk.parameters(), weighted_sum(weights, at_trunk), strict=True):
            assert torch.allclose(parameter.grad, wanted, rtol=1e-9, atol=1e-12)
        assert ("norm/a" in balancer.metrics()) is (step % 3 == 0)
        with torch.no_grad():
            network.trunk[0].weight.mul_(1.1)
    assert looks.count(2) == 2  # weight and bias of the last layer, in the first and the fourth step


@pytest.mark.parametrize("method", PROBING)
def test_probes_are_read_at_the_layer(method: str) -> None:
    network = Network()
    losses, z = network.losses()
    probes = [Network(seed=seed) for seed in (1, 2)]
    for each in probes:
        each.trunk, each.heads = network.trunk, network.heads
    at_layer, looking = build(method), build(method, look="last")
    at_layer(losses, shared=network.trunk, look=network.trunk[2], probes=[each.losses()[0] for each in probes])
    looking(losses, shared=z, probes=[each.losses()[0] for each in probes])
    assert torch.allclose(at_layer._now.record.seen.cross_gramian, looking._now.record.seen.cross_gramian, rtol=1e-12)
    J = [
        torch.stack(
            [torch.cat([g.flatten() for g in row]) for row in task_gradients(each.losses()[0], network.last).values()]
        )
        for each in probes
    ]
    assert torch.allclose(looking._now.record.seen.cross_gramian, J[0] @ J[1].T, rtol=1e-9)


def test_behind_a_checkpointed_block() -> None:
    network = Network()
    expected, _ = network.losses()
    gramian = network.gramian(expected, network.last)
    losses, z = network.losses(checkpoint(network.trunk, network.inputs, use_reentrant=False))
    for look in ("last", network.trunk[2]):
        balancer = build("mgda", look=look)
        balancer(losses, shared=z)
        assert torch.allclose(balancer._now.record.seen.gramian, gramian, rtol=1e-10)


def test_under_autocast() -> None:
    network = Network()
    for part in (network.trunk, network.heads):
        part.float()
    network.inputs, network.targets = network.inputs.float(), network.targets.float()
    gramian = network.gramian(network.losses()[0], network.last)
    for heads in ("plain", "weighted"):
        with torch.autocast("cpu", torch.bfloat16):
            losses, z = network.losses()
        balancer = build("mgda", look="last", heads=heads)
        balancer(losses, shared=z).backward()
        norms = gramian.diagonal().sqrt()
        error = (balancer._now.record.seen.gramian - gramian).abs() / (norms[:, None] * norms)
        assert float(error.max()) < 0.05
        assert all(parameter.grad is not None for parameter in network.trunk.parameters())


@pytest.mark.parametrize("heads", ["plain", "weighted"])
def test_micro_batches_miss_the_products_between_them(heads: str) -> None:
    """As at the trunk: the window's squared norm is the mean of the micro-batches' own."""
    network = Network()
    optimizer = torch.optim.SGD(network.trunk.parameters(), lr=0.0)
    balancer = steelyard.make("inverse-norm", list(TASKS), look="last", heads=heads).attach(optimizer)
    squares = []
    for rows in (slice(0, 6), slice(6, 12)):
        z = network.trunk(network.inputs[rows])
        losses = {
            task: (head(z) - target[rows]).square().mean()
            for task, head, target in zip(TASKS, network.heads, network.targets, strict=True)
        }
        squares.append(network.gramian(losses, network.last).diagonal())
        balancer(losses, shared=z).backward()
        assert torch.allclose(balancer._now.record.seen.squared_norms, squares[-1], rtol=1e-10)
    optimizer.step()
    assert torch.allclose(balancer.average, (1 - balancer.beta) * sum(squares).sqrt() / 2, rtol=1e-10)


def test_a_copy_says_so_where_it_no_longer_holds_the_layer() -> None:
    network = Network()
    losses, z = network.losses()
    named, held = copy.deepcopy(build("mgda", look="last")), copy.deepcopy(build("mgda", look=network.trunk[2]))
    named(losses, shared=z)
    with pytest.raises(SharedError, match="look='layers that a copy does not hold'"):
        held(losses, shared=z)
    held(losses, shared=z, look=network.trunk[2])
    assert torch.equal(named.last_weights, held.last_weights)
    assert not list(build("mgda", look=network.trunk[2]).parameters())


class TestRefusals:
    @pytest.mark.parametrize("method", ROWS)
    @pytest.mark.parametrize("look", ["last", "trunk"])
    def test_methods_that_make_a_direction_of_the_rows(self, method: str, look: str) -> None:
        network = Network()
        losses, z = network.losses()
        why = "is defined on features" if method == "graddrop" else "makes its answer of the task gradients themselves"
        with pytest.raises(SharedError, match=f"{method} {why}.*leave look= away"):
            build(method, look=look)(losses, shared=z)

    @pytest.mark.parametrize("method", ["uw", "auto-lambda", "equal"])
    def test_methods_that_read_no_gradients(self, method: str) -> None:
        with pytest.raises(OptionError, match="look= says where task gradients are read, and"):
            steelyard.make(method, ["a", "b"], look="last")

    @pytest.mark.parametrize("look", [3, [], [torch.ones(2)], torch.ones(2, requires_grad=True)])
    def test_what_is_no_layer(self, look: object) -> None:
        with pytest.raises(OptionError, match="look= is 'features', 'last', 'trunk', or layers"):
            steelyard.make("mgda", ["a", "b"], look=look)

    def test_places_that_are_not_there(self) -> None:
        network = Network()
        losses, z = network.losses()
        balancer = build("mgda")
        with pytest.raises(SharedError, match="look='midst' is no place"):
            balancer(losses, shared=z, look="midst")
        with pytest.raises(UnknownNameError, match="midst"):
            balancer(losses, shared=network.trunk, look="midst")
        with pytest.raises(SharedError, match="features change with every batch"):
            balancer(losses, shared=network.trunk, look="features")
        with pytest.raises(SharedError, match="no trainable parameter in it"):
            balancer(losses, shared=z, look=nn.Tanh())
        leaf = torch.randn(12, 8, requires_grad=True, dtype=torch.float64)
        behind_nothing = network.losses(leaf)[0]
        with pytest.raises(SharedError, match="no trainable parameter behind shared="):
            balancer(behind_nothing, shared=leaf, look="last")
        with pytest.raises(SharedError, match="depends on a trainable parameter of the layers given as look="):
            balancer(losses, shared=z, look=nn.Linear(2, 2))

    def test_a_layer_in_the_middle_as_the_trunk_of_plain_heads(self) -> None:
        """Nothing says where its heads begin; ``look=`` needs no more than the layer."""
        network = Network()
        losses, z = network.losses()
        with pytest.raises(SharedError, match="with look= for a layer in the middle of the trunk"):
            build("pcgrad")(losses, shared=network.trunk[2])
        build("pcgrad")(losses, shared=z, look=network.trunk[2])

    def test_gradients_that_are_kept(self) -> None:
        network = Network()
        losses, _ = network.losses()
        with pytest.raises(SharedError, match="memory='rows' keeps the gradients at what shared= points at"):
            build("mgda", memory="rows", look="last")(losses, shared=network.trunk)


def test_the_price_list_holds_no_surprise_for_a_single_task() -> None:
    network = Network()
    losses, z = network.losses()
    balancer = build("mgda", look="last")
    balancer({"a": losses["a"]}, shared=z)
    assert math.isclose(balancer.metrics()["weight/a"], 1.0)
