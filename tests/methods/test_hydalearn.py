"""HydaLearn against steps that are really taken, on copies of the model; its limit; and that nothing is touched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import steelyard
from steelyard.errors import LossError, MissingInputError, NonFiniteLossError, OptionError, SteelyardError

TASKS = ["main", "near", "far"]


class Network(nn.Module):
    """A trunk and a head per task; with batch normalisation and dropout where asked."""

    def __init__(self, noisy: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        extra = [nn.BatchNorm1d(8), nn.Dropout(0.5)] if noisy else []
        self.trunk = nn.Sequential(nn.Linear(5, 8), *extra, nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(8, 1) for task in TASKS})
        self.double()

    def forward(self, inputs: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        features = self.trunk(inputs)
        return {task: head(features) for task, head in self.heads.items()}, features


def batch(seed: int = 0, rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    signal = inputs[:, :1] + inputs[:, 1:2] ** 2
    noise = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.cat([signal, 0.7 * signal, -0.2 * signal], 1) + torch.tensor([0.1, 0.3, 2.0]) * noise


def losses_on(call, batch):
    inputs, targets = batch
    outputs, _ = call(inputs)
    return {task: (outputs[task][:, 0] - targets[:, k]).square().mean() + 0.5 for k, task in enumerate(TASKS)}


def main_loss(network, batch) -> float:
    return losses_on(network, batch)["main"].item()


def weigh(method, network, batch, held_out=None) -> dict[str, float]:
    again = steelyard.losses_of(network, losses_on, batch, held_out)
    method(losses_on(network, batch), again=again).backward()
    return dict(zip(TASKS, method.last_weights.tolist(), strict=True))


def taken(network, batch, rate, judged=None, task_loss=lambda loss: loss) -> dict[str, float]:
    """The gains of steps that a copy of the network really takes."""
    gains = {}
    for task in TASKS:
        twin = copy.deepcopy(network)
        sgd = torch.optim.SGD(twin.parameters(), lr=rate)
        task_loss(losses_on(twin, batch)[task]).backward()
        sgd.step()
        gains[task] = main_loss(network, judged or batch) - main_loss(twin, judged or batch)
    return gains


def ratios(gains: dict[str, float]) -> dict[str, float]:
    return {task: max(0.0, gain / gains["main"]) for task, gain in gains.items()}


@pytest.mark.parametrize("judged", ["batch", "held-out"])
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_the_gains_of_steps_really_taken(seed: int, judged: str) -> None:
    network, here, other = Network(), batch(seed), batch(seed + 10)
    method = steelyard.make("hydalearn", TASKS, main="main", judged=judged, learning_rate=0.05)
    expected = ratios(taken(network, here, 0.05, other if judged == "held-out" else None))
    found = weigh(method, network, here, other)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found["main"] == 1.0
    assert found["near"] > 0


@pytest.mark.filterwarnings("ignore:hydalearn was attached to an optimizer that goes on")  # and is new, as it should be
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_step_of_the_optimizer_is_the_one_that_it_would_take(kind: str) -> None:
    """After three real steps, so that it has momenta; and neither its state nor the parameters move."""
    network, here = Network(), batch()
    if kind == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        sum(losses_on(network, here).values()).backward()
        optimizer.step()
    gains = {}
    for task in TASKS:
        twin, twin_optimizer = copy.deepcopy((network, optimizer))
        twin_optimizer.zero_grad()
        losses_on(twin, here)[task].backward()
        twin_optimizer.step()
        gains[task] = main_loss(network, here) - main_loss(twin, here)
    before = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    method = steelyard.make("hydalearn(main=main,step=optimizer)", TASKS).attach(optimizer)
    expected = {task: min(value, 10.0) for task, value in ratios(gains).items()}
    assert weigh(method, network, here) == pytest.approx(expected, rel=1e-9)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[0][name])
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, before[1]["state"][number][name])


class Quadratic(nn.Module):
    """Losses ½ (θ - c)ᵀ A (θ - c) of a shared vector, and ½ ‖h - e‖² of a head of each task."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.theta = nn.Parameter(torch.randn(6, generator=draw, dtype=torch.float64))
        self.heads = nn.ParameterDict({task: torch.randn(4, generator=draw, dtype=torch.float64) for task in TASKS})
        self.centres = [torch.randn(6, generator=draw, dtype=torch.float64) for _ in TASKS]
        roots = [torch.randn(6, 6, generator=draw, dtype=torch.float64) for _ in TASKS]
        self.curvatures = [root @ root.T / 6 for root in roots]

    def forward(self) -> dict[str, torch.Tensor]:
        losses = {}
        for task, centre, curvature in zip(TASKS, self.centres, self.curvatures, strict=True):
            away = self.theta - centre
            losses[task] = 0.5 * (away @ curvature @ away + (self.heads[task] - 1).square().sum())
        return losses


def exact_and_limit(rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    model = Quadratic()
    exact = steelyard.make("hydalearn(main=main,max_ratio=100.0)", TASKS, learning_rate=rate)
    limit = steelyard.make("hydalearn(main=main,mode=first-order,max_ratio=100.0)", TASKS)
    exact(model(), again=steelyard.losses_of(model, lambda call, _: call(), None))
    limit(model(), shared=model)
    return exact.last_weights, limit.last_weights


def test_the_exact_mode_tends_to_the_first_order_one_in_proportion_to_the_rate() -> None:
    _, limit = exact_and_limit(1e-6)
    assert (limit[1:] > 0).any(), "a case in which an auxiliary helps"
    errors = [float((exact_and_limit(rate)[0] - limit).abs().max() / limit.max()) for rate in (1e-3, 5e-4, 1e-5)]
    assert errors[2] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)
    assert errors[0] / errors[2] == pytest.approx(100, rel=0.05)


def test_the_first_order_mode_counts_the_main_head_where_shared_is_the_whole_model() -> None:
    model = Quadratic()
    losses = model()
    g = {task: torch.autograd.grad(losses[task], model.theta, retain_graph=True)[0] for task in TASKS}
    h = torch.autograd.grad(losses["main"], model.heads["main"], retain_graph=True)[0]
    for shared, length in ((model, g["main"] @ g["main"] + h @ h), ([model.theta], g["main"] @ g["main"])):
        method = steelyard.make("hydalearn(main=main,mode=first-order,max_ratio=100.0)", TASKS)
        method(losses, shared=shared)
        expected = [1.0, *(max(0.0, float(g["main"] @ g[task] / length)) for task in TASKS[1:])]
        assert method.last_weights.tolist() == pytest.approx(expected, rel=1e-9)


def test_the_network_its_statistics_and_the_generator_stay_as_they_are() -> None:
    network, here = Network(noisy=True), batch()
    method = steelyard.make("hydalearn(main=main)", TASKS, learning_rate=0.1)
    losses, again = losses_on(network, here), steelyard.losses_of(network, losses_on, here)
    before = copy.deepcopy(network.state_dict())
    drawn = torch.get_rng_state()
    assert again()["main"].item() == again()["main"].item(), "two looks draw the same dropout"
    loss = method(losses, again=again)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    loss.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


def linear(task_gradients: dict[str, list[float]]) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A model whose losses are linear in two numbers, so that gains are inner products."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self) -> dict[str, torch.Tensor]:
            return {task: self.place @ torch.tensor(g, dtype=torch.float64) for task, g in task_gradients.items()}

    model = Linear()
    return model, model()


@pytest.mark.parametrize(
    ("near", "far", "expected"),
    [
        ([1.0, 1.0], [0.5, 0.0], [1.0, 1.0, 0.5]),  # the ratio itself
        ([-1.0, 0.0], [0.0, 3.0], [1.0, 0.0, 0.0]),  # harm and no effect
        ([9.0, 0.0], [70.0, 0.0], [1.0, 9.0, 10.0]),  # the cap
    ],
)
def test_the_guards(near: list[float], far: list[float], expected: list[float]) -> None:
    model, losses = linear({"main": [1.0, 0.0], "near": near, "far": far})
    method = steelyard.make("hydalearn(main=main)", TASKS, learning_rate=1e-2)
    method(losses, again=steelyard.losses_of(model, lambda call, _: call(), None))
    assert method.last_weights.tolist() == pytest.approx(expected, rel=1e-9)


def test_the_main_task_is_trained_alone_where_its_own_step_overshoots() -> None:
    network, here = Network(), batch()
    method = steelyard.make("hydalearn(main=main)", TASKS, learning_rate=100.0)
    assert taken(network, here, 100.0)["main"] < 0
    assert weigh(method, network, here) == {"main": 1.0, "near": 0.0, "far": 0.0}


def test_a_step_after_which_the_main_loss_overflows_is_harm() -> None:
    model, losses = linear({"main": [1.0, 0.0], "near": [1.0, 0.0], "far": [1.0, 1.0]})

    def overflowing(call, _):
        return {"main": call()["main"] + (torch.inf if model_is_far(call) else 0.0)}

    def model_is_far(call) -> bool:
        return call()["far"].item() < losses["far"].item() - 0.015

    method = steelyard.make("hydalearn(main=main)", TASKS, learning_rate=1e-2)
    method(losses, again=steelyard.losses_of(model, overflowing, None))
    assert method.last_weights.tolist() == pytest.approx([1.0, 1.0, 0.0], rel=1e-9)


def test_a_gradient_that_is_not_finite_follows_the_policy() -> None:
    model = Quadratic()

    def losses() -> dict[str, torch.Tensor]:
        found = model()
        spoiled = (model.theta - model.theta.detach()).abs().sum().sqrt()  # 0, with an infinite slope
        return {**found, "far": found["far"] + spoiled}

    def method(policy: str) -> steelyard.Balancer:
        return steelyard.make("hydalearn(main=main,max_ratio=100.0)", TASKS, on_nonfinite=policy, learning_rate=1e-3)

    again = steelyard.losses_of(model, lambda call, _: call(), None)
    with pytest.raises(NonFiniteLossError, match="'far'"):
        method("raise")(losses(), again=again)
    dropping, without = method("drop_task"), method("raise")
    dropping(losses(), again=again)
    without({task: loss for task, loss in model().items() if task != "far"}, again=again)
    assert torch.equal(dropping.last_weights, without.last_weights)


def test_steps_go_along_the_gradients_that_stages_leave() -> None:
    network, here = Network(), batch()
    gains = taken(network, here, 0.05, task_loss=torch.log)
    losses = {task: loss.item() for task, loss in losses_on(network, here).items()}
    expected = {task: ratio / losses[task] for task, ratio in ratios(gains).items()}
    found = weigh(steelyard.make("log+hydalearn(main=main)", TASKS, learning_rate=0.05), network, here)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_window_of_micro_batches_is_judged_by_its_mean_gain() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    method = steelyard.make("hydalearn(main=main)", TASKS).attach(optimizer)
    parts, counts = [batch(1, 8), batch(2, 24)], [8, 24]
    gains = [taken(network, part, 0.05) for part in parts]
    for part, count in zip(parts, counts, strict=True):
        again = steelyard.losses_of(network, losses_on, part)
        method(losses_on(network, part), again=again, counts=dict.fromkeys(TASKS, count)).backward()
    optimizer.step()
    mean = {task: (8 * gains[0][task] + 24 * gains[1][task]) / 32 for task in TASKS}
    committed = dict(zip(TASKS, method.summary().means, strict=True))
    assert committed == pytest.approx(ratios(mean), rel=1e-9)


def test_steps_between_looks_cost_nothing() -> None:
    network, here, calls = Network(), batch(), []

    def counted(call, batch):
        calls.append(1)
        return losses_on(call, batch)

    method = steelyard.make("hydalearn(main=main,every=3)", TASKS)
    for _ in range(6):
        method(losses_on(network, here), again=steelyard.losses_of(network, counted, here))
    assert len(calls) == 2 * (1 + len(TASKS))


def test_what_is_missing_is_said_with_the_line_to_write() -> None:
    network, here = Network(), batch()
    method = steelyard.make("hydalearn(main=main)", TASKS)
    losses = losses_on(network, here)
    with pytest.raises(MissingInputError, match=r"again=steelyard.losses_of\(model, losses_on, batch\)"):
        method(losses)
    with pytest.raises(MissingInputError, match="has no `parameters`"):
        method(losses, again=lambda params=None, batch=None: losses)
    with pytest.raises(MissingInputError, match="depends on no parameter of again='s model"):
        method(losses, again=steelyard.losses_of(Network(), losses_on, here))
    with pytest.raises(MissingInputError, match="held_out=other_batch"):
        weigh(steelyard.make("hydalearn(main=main,judged=held-out)", TASKS), network, here)
    with pytest.raises(OptionError, match=r"call balancer.attach\(optimizer\)"):
        weigh(steelyard.make("hydalearn(main=main,step=optimizer)", TASKS), network, here)
    with pytest.raises(LossError, match="'main' has no loss in the batch at hand, recomputed"):
        method(losses, again=steelyard.losses_of(network, lambda call, b: {"near": losses_on(call, b)["near"]}, here))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mode=first-order,judged=held-out", "takes no step"),
        ("step=optimizer,learning_rate=0.1", "leave out learning_rate="),
        ("max_ratio=0", "max_ratio"),
        ("mode=fast", "mode"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, message: str) -> None:
    with pytest.raises(SteelyardError, match=message):
        steelyard.make(f"hydalearn(main=main,{options})", TASKS)
