"""What amortised methods hear of a step is ``J Jᵀ w``, by a loop over the tasks, however it was found."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.base.observation import Along
from steelyard.base.state import State
from steelyard.errors import LossError, MissingInputError, OptionError, SharedError
from steelyard.testing.toy import same_state, snapshot

Losses = dict[str, Tensor]
Places = dict[str, Any]
PRODUCTS = ("difference", "forward", "backward")


class Listening(steelyard.MGDA):
    """MGDA that keeps what it hears."""

    def look_along(self, along: Along, state: State) -> None:
        self.heard = along
        super().look_along(along, state)


class Network(nn.Module):
    """A trunk, and a head for each of some tasks."""

    def __init__(self, trunk: nn.Module | None = None, tasks: int = 3, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.names = [f"task{number}" for number in range(tasks)]
        self.trunk = trunk or nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(8, 3) for name in self.names})
        self.to(dtype)
        self.inputs = torch.randn(16, 6, dtype=dtype)
        sizes = {name: 2.0 ** (number % 5) for number, name in enumerate(self.names)}
        self.targets = {name: size * torch.randn(16, 3, dtype=dtype) for name, size in sizes.items()}

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        features = self.trunk(inputs)
        errors = {name: self.heads[name](features) - self.targets[name][: len(inputs)] for name in self.names}
        return {name: error.square().mean() for name, error in errors.items()}, features


def losses_on(call: Callable[..., Any], inputs: Tensor) -> Losses:
    losses: Losses = call(inputs)[0]
    return losses


def by_a_loop(losses: Losses, parameters: list[nn.Parameter], weights: Tensor) -> Tensor:
    """``J Jᵀ w`` in float64, one gradient after the other."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        there = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        rows.append(torch.cat([gradient.flatten() for gradient in there]))
    J = torch.stack(rows).double()
    return J @ (J.T @ weights)


def train(
    network: Network,
    product: str,
    steps: int = 3,
    make: Callable[..., Any] = Listening,
    shared: str = "features",
    spoil: Callable[[Network], None] = lambda network: None,
    rate: float = 1e-3,
    **options: Any,
) -> tuple[Any, Tensor, Tensor]:
    """Some steps; the balancer, and of the last step the products by a loop, and those that it heard."""
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    balancer = make(network.names, solver="amortised", product=product, **options)
    if product != "backward":
        balancer.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        losses, features = network(network.inputs)
        again = steelyard.losses_of(network, losses_on, network.inputs)
        place = {"features": features, "trunk": network.trunk, "layer": [network.trunk[2]]}[shared]
        loss = balancer(losses, shared=place, again=again)
        moved = list((network.trunk[2] if shared == "layer" or balancer.look == "last" else network.trunk).parameters())
        expected = by_a_loop(losses, moved, balancer.last_weights)
        loss.backward()
        spoil(network)
        optimizer.step()
    return balancer, expected, balancer.heard.products


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


BOUNDS = {
    torch.float64: {"difference": 1e-6, "forward": 1e-12, "backward": 1e-12},
    torch.float32: {"difference": 3e-2, "forward": 1e-5, "backward": 1e-5},
}


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("tasks", [1, 2, 100])
def test_it_is_the_product_by_a_loop(product: str, dtype: torch.dtype, tasks: int) -> None:
    _, expected, heard = train(Network(tasks=tasks, dtype=dtype), product)
    assert off(heard, expected) <= BOUNDS[dtype][product]


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize(("shared", "options"), [("trunk", {}), ("layer", {}), ("features", {"look": "last"})])
def test_it_is_that_of_the_parameters_that_are_looked_at(product: str, shared: str, options: dict[str, Any]) -> None:
    _, expected, heard = train(Network(), product, shared=shared, **options)
    assert off(heard, expected) <= BOUNDS[torch.float64][product]


def test_plain_heads_leave_the_product_of_the_trunk_as_it_is() -> None:
    for product in PRODUCTS:
        _, expected, heard = train(Network(), product, heads="plain")
        assert off(heard, expected) <= BOUNDS[torch.float64][product]


class Scaled(Network):
    """All losses multiplied by a number."""

    factor = 1.0

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        losses, features = super().forward(inputs)
        return {name: loss * self.factor for name, loss in losses.items()}, features


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("factor", [1e-12, 1e6])
def test_no_common_factor_of_the_losses_shows_in_the_weights(product: str, factor: float) -> None:
    """In float32, where squares of such gradients come near to both ends."""
    network = Scaled(dtype=torch.float32)
    weights = []
    for each in (1.0, factor):
        network.factor = each
        balancer, expected, heard = train(network, product, rate=1e-3 / each)
        assert off(heard, expected) <= BOUNDS[torch.float32][product]
        weights.append(balancer.last_weights)
    assert torch.allclose(*weights, rtol=1e-4 if product != "difference" else 1e-2)


@pytest.mark.parametrize("product", ["difference", "forward"])
@pytest.mark.parametrize("factor", [1e-3, 0.25, 1e4])
def test_clipped_and_scaled_gradients_are_taken_for_what_they_were(product: str, factor: float) -> None:
    def scale(network: Network) -> None:
        for parameter in network.parameters():
            parameter.grad = parameter.grad * factor

    _, expected, heard = train(Network(), product, spoil=scale, rate=1e-3 / factor)
    assert off(heard, expected) <= BOUNDS[torch.float64][product]


class Half(Network):
    """Its trunk runs in bfloat16."""

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = self.trunk(inputs)
            outputs = {name: head(features).float() for name, head in self.heads.items()}
        return {name: (outputs[name] - self.targets[name]).square().mean() for name in self.names}, features


def test_in_half_precision_forward_mode_is_taken_and_a_difference_is_none() -> None:
    exact = {}
    for product in ("auto", "difference"):
        _, expected, heard = train(Half(dtype=torch.float32), product)
        exact[product] = off(heard, expected)
    assert exact["auto"] < 0.03 < exact["difference"], exact


class Dropping(Network):
    """Dropout that draws anew whenever it is asked."""

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        features = nn.functional.dropout(self.trunk(inputs), 0.1)
        errors = {name: self.heads[name](features) - self.targets[name] for name in self.names}
        return {name: error.square().mean() for name, error in errors.items()}, features


def test_losses_that_are_drawn_anew_are_compared_with_one_another() -> None:
    """The difference from the losses at hand would be that of two draws."""
    balancer, _, heard = train(Dropping(), "difference", steps=1)
    assert balancer._now.caches.repeats is False
    drawn = balancer.heard.weights @ heard
    assert torch.isfinite(drawn)
    _, expected, _ = train(Dropping(), "backward", steps=1)
    assert off(heard, expected) < 0.5  # two draws apart; of the losses' difference it would be a thousand


class Skipping(Network):
    """A residual layer that is skipped at random, as something draws it."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw, self.more = draw, nn.Linear(8, 8).double()

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        features = self.trunk(inputs)
        if self.draw() > 0.5:
            features = features + 0.1 * self.more(features)
        errors = {name: self.heads[name](features) - self.targets[name] for name in self.names}
        return {name: error.square().mean() for name, error in errors.items()}, features


DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "python": random.random,
    "numpy": lambda: float(numpy.random.rand()),
}


@pytest.mark.parametrize("source", DRAWS)
def test_a_layer_that_was_kept_by_chance_may_be_skipped_in_the_next_step(source: str) -> None:
    """The first recomputed losses are those at hand; in later steps the difference would be that of two networks."""
    network = Skipping(DRAWS[source])
    for seed in range(8):
        for start in (torch.manual_seed, random.seed, numpy.random.seed):
            start(seed)
        _, expected, heard = train(network, "difference", steps=6)
        assert off(heard, expected) < 1, seed  # two networks apart; the losses' difference would be a thousand


@pytest.mark.parametrize("kind", ["MT19937", "PCG64"])
def test_recomputed_losses_leave_numpys_generator_of_any_kind_where_it_was(kind: str) -> None:
    usual = numpy.random.get_bit_generator()
    numpy.random.set_bit_generator(getattr(numpy.random, kind)(0))
    try:
        again = steelyard.losses_of(
            nn.Identity(), lambda call, batch: {"a": torch.rand(()) * numpy.random.rand()}, None
        )
        assert float(again()["a"]) == float(again()["a"])
        assert again.drew
    finally:
        numpy.random.set_bit_generator(usual)


class Counting(Network):
    """Every other forward pass is another one, by a count that is kept where `losses_of` does not see it."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        self.passes.append(1)
        return super().forward(inputs * (1 + len(self.passes) % 2))


class Scattering(Network):
    """As sums that are taken in another order each time."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        losses, features = super().forward(inputs)
        self.passes.append(1)
        return {name: loss * (1 + 1e-10 * (len(self.passes) % 3)) for name, loss in losses.items()}, features


def test_losses_that_scatter_by_some_roundings_are_compared_to_both_sides() -> None:
    balancer, expected, heard = train(Scattering(), "difference", steps=1)
    assert balancer._now.caches.repeats is False
    assert off(heard, expected) < 0.1  # each difference is of some 1e-8 of a loss


def test_losses_that_differ_in_every_call_are_refused() -> None:
    with pytest.raises(LossError, match="others each time"):
        train(Counting(), "difference", steps=1)


def test_attention_without_a_formula_in_forward_mode_runs_by_its_plain_one() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
    trunk = nn.Sequential(nn.Unflatten(1, (1, 6)), layer, nn.Flatten(), nn.Linear(6, 8))

    class Mean(Network):
        pass

    network = Mean(trunk)
    for product in ("difference", "forward"):
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        balancer = Listening(network.names, solver="amortised", product=product).attach(optimizer)
        losses, features = network(network.inputs)
        loss = balancer(losses, shared=features, again=steelyard.losses_of(network, losses_on, network.inputs))
        expected = by_a_loop(losses, list(network.trunk.parameters()), balancer.last_weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert off(balancer.heard.products, expected) <= BOUNDS[torch.float64][product]


class OnceOnly(torch.autograd.Function):
    """An operation whose backward leaves torch, and that has none in forward mode."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


class Opaque(Network):
    def forward(self, inputs: Tensor) -> tuple[Losses, Tensor]:
        features = OnceOnly.apply(self.trunk(inputs))
        errors = {name: self.heads[name](features) - self.targets[name] for name in self.names}
        return {name: error.square().mean() for name, error in errors.items()}, features


def test_what_cannot_be_differentiated_again_is_refused_by_name_where_a_difference_does() -> None:
    with pytest.raises(SharedError, match=r"losses_of\(model, losses_on, batch\)"):
        train(Opaque(), "backward")
    with pytest.raises(SharedError, match="product='difference'"):
        train(Opaque(), "forward")
    _, expected, heard = train(Opaque(), "difference")
    assert off(heard, expected) <= BOUNDS[torch.float64]["difference"]


@pytest.mark.parametrize("product", ["difference", "forward"])
def test_micro_batches_are_looked_at_along_the_step_of_all(product: str) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    balancer = Listening(network.names, solver="amortised", product=product).attach(optimizer)
    whole = network(network.inputs)[0]
    expected = by_a_loop(whole, list(network.trunk.parameters()), torch.full((3,), 1 / 3, dtype=torch.float64))
    for part in (slice(0, 4), slice(4, 16)):
        rows = network.inputs[part]

        def on(call: Callable[..., Any], rows: slice) -> Losses:
            features = call(network.inputs[rows])
            return {n: (network.heads[n](features) - network.targets[n][rows]).square().mean() for n in network.names}

        losses = on(network.trunk, part)
        again = steelyard.losses_of(network.trunk, on, part)
        counts = dict.fromkeys(network.names, float(len(rows)))
        (balancer(losses, shared=network.trunk, again=again, counts=counts) * (len(rows) / 16)).backward()
    optimizer.step()
    assert off(balancer.heard.products, expected) <= BOUNDS[torch.float64][product]
    assert balancer.steps == 1


def test_several_micro_batches_need_the_second_forward_pass() -> None:
    network = Network()
    balancer = Listening(network.names, solver="amortised").attach(torch.optim.SGD(network.parameters(), lr=1e-3))
    balancer(network(network.inputs)[0], shared=network.trunk).backward()
    with pytest.raises(OptionError, match="several micro-batches"):
        balancer(network(network.inputs)[0], shared=network.trunk)


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_absent_task_is_not_heard_of_and_its_state_does_not_move(product: str) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    balancer = Listening(network.names, solver="amortised", product=product)
    if product != "backward":
        balancer.attach(optimizer)
    for absent in (None, "task1"):
        before = balancer.committed("log_weights")
        losses = {name: loss for name, loss in network(network.inputs)[0].items() if name != absent}
        optimizer.zero_grad()
        again = steelyard.losses_of(network, losses_on, network.inputs)
        balancer(losses, shared=network.trunk, again=again).backward()
        optimizer.step()
    assert balancer.heard.tasks == ("task0", "task2")
    after = balancer.committed("log_weights")
    assert [float(a) == float(b) for a, b in zip(before, after, strict=True)] == [False, True, False]


@pytest.mark.parametrize("policy", ["drop_task", "skip_step", "ignore"])
@pytest.mark.parametrize("product", PRODUCTS)
def test_spoiled_losses_leave_the_state_finite(product: str, policy: str) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    balancer = Listening(network.names, solver="amortised", product=product, on_nonfinite=policy)
    if product != "backward":
        balancer.attach(optimizer)
    for bad in (1.0, float("nan")):
        before = snapshot(balancer)
        parameters = [parameter.detach().clone() for parameter in network.parameters()]

        def spoiled(call: Callable[..., Any], inputs: Tensor, bad: float = bad) -> Losses:
            losses = losses_on(call, inputs)
            return {**losses, "task1": losses["task1"] * bad}

        optimizer.zero_grad()
        again = steelyard.losses_of(network, spoiled, network.inputs)
        balancer(spoiled(network, network.inputs), shared=network.trunk, again=again).backward()
        optimizer.step()
    assert bool(balancer.committed("log_weights").isfinite().all())
    if policy == "skip_step":
        assert all(map(torch.equal, parameters, network.parameters())) or product == "backward"
        assert same_state(before, snapshot(balancer))


def test_a_step_that_is_left_out_teaches_nothing() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    balancer = Listening(network.names, solver="amortised").attach(optimizer)
    again = steelyard.losses_of(network, losses_on, network.inputs)
    before = snapshot(balancer)
    balancer(network(network.inputs)[0], shared=network.trunk, again=again).backward()
    balancer.discard()
    optimizer.step()
    assert same_state(before, snapshot(balancer))


def test_a_closure_is_looked_along_once_and_where_it_was_evaluated_first() -> None:
    network = Network()
    optimizer = torch.optim.LBFGS(network.parameters(), lr=0.1, max_iter=4)
    balancer = Listening(network.names, solver="amortised", product="forward").attach(optimizer)
    again = steelyard.losses_of(network, losses_on, network.inputs)
    first = by_a_loop(
        network(network.inputs)[0], list(network.trunk.parameters()), torch.full((3,), 1 / 3, dtype=torch.float64)
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = balancer(network(network.inputs)[0], shared=network.trunk, again=again)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert balancer.steps == 1
    assert off(balancer.heard.products, first) <= 1e-12


def test_what_is_missing_is_named() -> None:
    network = Network()
    losses, features = network(network.inputs)
    with pytest.raises(MissingInputError, match=r"again=steelyard.losses_of.*balancer.attach\(optimizer\)"):
        steelyard.MGDA(network.names, solver="amortised", product="forward")(losses, shared=features)
    with pytest.raises(SharedError, match="needs to know where"):
        steelyard.MGDA(network.names, solver="amortised")(losses)
    stranger = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    balancer = steelyard.MGDA(network.names, solver="amortised").attach(optimizer)
    loss = balancer(losses, shared=features, again=steelyard.losses_of(stranger, losses_on, stranger.inputs))
    loss.backward()
    with pytest.raises(MissingInputError, match="none of again='s model"):
        optimizer.step()


@pytest.mark.parametrize(
    "spec",
    [
        "mgda(normalise=l2,solver=amortised)",
        "nash-mtl(solver=amortised,max_norm=1.0)",
        "nash-mtl(solver=amortised,normalise=True)",
        "mgda(rate=0.1)",
        "fairgrad(product=forward)",
        "mgda(solver=amortised,rate=0)",
        "mgda(solver=amortised,product=guess)",
        "mgda(solver=exactly)",
        "mgda(solver=amortised,memory=rows)",
        "mgda(solver=amortised,sync=local-mean)",
        "famo(form=before,heads=plain)",
        "famo(product=forward)",
    ],
)
def test_options_that_contradict_are_refused(spec: str) -> None:
    with pytest.raises(steelyard.SteelyardError):
        steelyard.make(spec, ["a", "b"])


@pytest.mark.parametrize("product", PRODUCTS)
def test_it_goes_on_from_a_checkpoint_bit_for_bit(product: str) -> None:
    """The state rides with the optimizer's where it is attached."""
    network = Network()

    def steps(network: Network, balancer: Any, optimizer: torch.optim.Optimizer, number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            losses, features = network(network.inputs)
            again = steelyard.losses_of(network, losses_on, network.inputs)
            balancer(losses, shared=features, again=again).backward()
            optimizer.step()

    def start(network: Network) -> tuple[Any, torch.optim.Optimizer]:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        balancer = steelyard.NashMTL(network.names, solver="amortised", product=product)
        return balancer.attach(optimizer), optimizer

    balancer, optimizer = start(network)
    steps(network, balancer, optimizer, 3)
    twin = copy.deepcopy(network)
    other, its = start(twin)
    its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(network, balancer, optimizer, 3)
    steps(twin, other, its, 3)
    assert torch.equal(balancer.last_weights, other.last_weights)
    assert all(map(torch.equal, network.parameters(), twin.parameters()))


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e4])
def test_famo_before_the_step_hears_of_all_parameters(factor: float) -> None:
    """And of the step that the losses ask for, whatever clipping or a gradient scaler has made of it."""

    class Famo(steelyard.FAMO):
        def look_along(self, along: Along, state: State) -> None:
            self.heard = along
            super().look_along(along, state)

    network = Network()
    for product in PRODUCTS:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        balancer = Famo(network.names, form="before", product=product)
        if product != "backward":
            balancer.attach(optimizer)
        losses, _ = network(network.inputs)
        loss = balancer(losses, again=steelyard.losses_of(network, losses_on, network.inputs))
        expected = by_a_loop(losses, list(network.parameters()), balancer.last_weights)
        optimizer.zero_grad()
        loss.backward()
        for parameter in network.parameters():
            parameter.grad *= factor
        optimizer.step()
        assert off(balancer.heard.products, expected) <= BOUNDS[torch.float64][product]
