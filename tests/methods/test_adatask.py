"""AdaTask beside torch's own optimizers, one for every task, and what it refuses to stand beside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import TwoLayer
from steelyard.balancing.balancer import Balancer
from steelyard.errors import OptionError

TASKS = {"a": 1.0, "b": 40.0, "c": 0.3}
FORMS: dict[str, tuple[str, Callable[..., torch.optim.Optimizer]]] = {
    "adam": ("adatask", torch.optim.Adam),
    "other betas": ("adatask(beta1=0.5,beta2=0.9,epsilon=1e-3)", torch.optim.Adam),
    "rmsprop": ("adatask(form=rmsprop,beta2=0.99)", torch.optim.RMSprop),
    "adagrad": ("adatask(form=adagrad,epsilon=1e-10)", torch.optim.Adagrad),
}
OPTIONS: dict[str, dict[str, Any]] = {"other betas": {"betas": (0.5, 0.9), "eps": 1e-3}}


class OneForEachTask:
    """A copy of the parameters and an optimizer for every task, which steps there by that task's gradient alone."""

    def __init__(self, form: str, parameters: list[Tensor]) -> None:
        self.kind = FORMS[form][1]
        self.options = OPTIONS.get(form, {})
        self.copies = {task: [nn.Parameter(each.detach().clone()) for each in parameters] for task in TASKS}
        self.optimizers = {task: self.kind(own, lr=1.0, **self.options) for task, own in self.copies.items()}

    def steps(self, losses: dict[str, Tensor], parameters: list[Tensor]) -> Tensor:
        """The sum of what each moves at a rate of 1."""
        total = torch.zeros(sum(each.numel() for each in parameters), dtype=torch.float64)
        for task, loss in losses.items():
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            before = [each.detach().clone() for each in self.copies[task]]
            for own, gradient in zip(self.copies[task], gradients, strict=True):
                own.grad = gradient.clone()
            self.optimizers[task].step()
            moved = [old - own.detach() for old, own in zip(before, self.copies[task], strict=True)]
            total += torch.cat([each.flatten() for each in moved])
        return total


def sent(balancer: Balancer, network: TwoLayer, losses: dict[str, Tensor]) -> Tensor:
    scalar = balancer(losses, shared=network.trunk)
    return torch.cat([each.flatten() for each in torch.autograd.grad(scalar, network.trunk_parameters())])


def follow(network: TwoLayer, direction: Tensor, rate: float = 0.05) -> None:
    start = 0
    for parameter in network.trunk_parameters():
        parameter.data -= rate * direction[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_sum_of_the_steps_of_one_optimizer_for_each_task(form: str) -> None:
    """A task that is absent keeps its moments and its own count of steps."""
    network = TwoLayer(TASKS)
    balancer = steelyard.make(FORMS[form][0], list(TASKS))
    theirs = OneForEachTask(form, network.trunk_parameters())
    for step in range(8):
        losses, _ = network.losses()
        if step in (3, 4):
            del losses["b"]
        expected = theirs.steps(losses, network.trunk_parameters())
        found = sent(balancer, network, losses)
        assert float((found - expected).norm() / expected.norm()) < 1e-5, f"step {step}: moments in float32"
        follow(network, found)


def model_of(tasks: dict[str, float]) -> nn.Module:
    torch.manual_seed(3)
    return nn.ModuleDict({"trunk": nn.Linear(5, 7), **{task: nn.Linear(7, 2) for task in tasks}}).double()


def losses_of(model: nn.Module, tasks: dict[str, float], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = model["trunk"].weight.dtype
    x, y = (torch.randn(9, size, generator=generator, dtype=torch.float64).to(dtype) for size in (5, 2))
    features = model["trunk"](x).tanh()
    return {task: scale * (model[task](features) - y).square().mean() for task, scale in tasks.items()}


def trained(model: nn.Module, tasks: dict[str, float], made: torch.optim.Optimizer, seeds: range) -> list[Tensor]:
    balancer = steelyard.make("adatask", list(tasks), shared=model)
    optimizer = balancer.optimizer_for(made)
    balancer.attach(optimizer)
    for seed in seeds:
        optimizer.zero_grad()
        balancer(losses_of(model, tasks, seed)).backward()
        optimizer.step()
    return [each.detach() for each in model.parameters()]


@pytest.mark.parametrize(("kind", "decay"), [(torch.optim.Adam, 0.0), (torch.optim.AdamW, 0.1)])
def test_one_task_and_all_parameters_are_adam(kind: Any, decay: float) -> None:
    tasks = {"a": 2.0}
    model, twin = model_of(tasks), model_of(tasks)
    own = kind(twin.parameters(), lr=0.03, weight_decay=decay)
    found = trained(model, tasks, kind(model.parameters(), lr=0.03, weight_decay=decay), range(20))
    for seed in range(20):
        own.zero_grad()
        losses_of(twin, tasks, seed)["a"].backward()
        own.step()
    for one, other in zip(found, twin.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_with_the_heads_in_shared_each_has_its_tasks_own_adam() -> None:
    """As the authors' optimizer has it: moments for each task at the trunk, one for each head."""
    model, twin = model_of(TASKS), model_of(TASKS)
    found = trained(model, TASKS, torch.optim.Adam(model.parameters(), lr=0.03), range(20))
    trunk = list(twin["trunk"].parameters())
    heads = torch.optim.Adam([each for task in TASKS for each in twin[task].parameters()], lr=0.03)
    theirs = OneForEachTask("adam", trunk)
    for seed in range(20):
        losses = losses_of(twin, TASKS, seed)
        steps = theirs.steps(losses, trunk)
        heads.zero_grad()
        sum(losses.values()).backward()
        heads.step()
        start = 0
        for parameter in trunk:
            parameter.data -= 0.03 * steps[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
    for one, other in zip(found, twin.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_two_optimizers_are_the_same_as_one_that_has_the_heads_in_shared() -> None:
    one, two = model_of(TASKS), model_of(TASKS)
    found = trained(one, TASKS, torch.optim.Adam(one.parameters(), lr=0.03), range(10))
    trunk = torch.optim.SGD(two["trunk"].parameters(), lr=0.03)
    heads = torch.optim.Adam([each for task in TASKS for each in two[task].parameters()], lr=0.03)
    balancer = steelyard.make("adatask", list(TASKS), shared=two["trunk"]).attach(trunk)
    for seed in range(10):
        for optimizer in (trunk, heads):
            optimizer.zero_grad()
        balancer(losses_of(two, TASKS, seed)).backward()
        for optimizer in (trunk, heads):
            optimizer.step()
    for first, second in zip(found, two.parameters(), strict=True):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-6)


def test_a_gradient_scaler_changes_nothing_and_a_step_that_overflows_leaves_no_trace() -> None:
    found = []
    for scale in (None, 2.0**10, 2.0**127):  # with the last, the first step overflows
        torch.manual_seed(0)
        model = model_of(TASKS).float()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler(
            "cpu", init_scale=scale or 1.0, backoff_factor=2.0**-120, enabled=scale is not None
        )
        balancer = steelyard.AdaTask(list(TASKS), shared=model).attach(optimizer, scaler)
        calls = 0
        while balancer.steps < 4:
            calls += 1
            losses = losses_of(model, TASKS, balancer.steps)
            optimizer.zero_grad()
            scaler.scale(balancer(losses)).backward()
            scaler.step(optimizer)
            scaler.update()
        assert (calls > 4) is (scale == 2.0**127)
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    assert torch.allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert torch.allclose(found[0], found[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e-36, 1e-20, 1e10, 1e30])
def test_steps_do_not_depend_on_the_size_of_gradients(size: float) -> None:
    """Squares of these are not in float32, their roots are."""
    rows = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    found = []
    for scale in (1.0, size):
        trunk = nn.Parameter(torch.zeros(20))
        balancer = steelyard.AdaTask(["a", "b"], epsilon=1e-42)
        for step in range(3):
            losses = {task: ((scale * (step + 1)) * rows[k]) @ trunk + 1 for k, task in enumerate("ab")}
            (direction,) = torch.autograd.grad(balancer(losses, shared=[trunk]), trunk)
        found.append(direction)
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_priorities_are_ratios_of_steps() -> None:
    network = TwoLayer(TASKS)
    plain = sent(steelyard.AdaTask(list(TASKS)), network, network.losses()[0])
    alone = sent(steelyard.AdaTask(list(TASKS)), network, {"b": network.losses()[0]["b"]})
    thrice = sent(steelyard.AdaTask(list(TASKS), priorities={"b": 3.0}), network, network.losses()[0])
    assert torch.allclose(thrice, plain + 2 * alone)


def test_micro_batches_send_what_the_large_batch_does_once_v_has_settled() -> None:
    model = model_of(TASKS)
    balancer = steelyard.AdaTask(list(TASKS), shared=model["trunk"])
    optimizer = torch.optim.SGD(model["trunk"].parameters(), lr=1e-3)
    balancer.attach(optimizer)
    for seed in range(400):
        optimizer.zero_grad()
        balancer(losses_of(model, TASKS, seed)).backward()
        optimizer.step()
    found = []
    for parts in (1, 2):
        twin = copy.deepcopy(balancer)
        twin.attach(optimizer)
        optimizer.zero_grad()
        both = [losses_of(model, TASKS, seed) for seed in (1000, 1001)]
        if parts == 1:
            both = [{task: (both[0][task] + both[1][task]) / 2 for task in TASKS}]
        for losses in both:
            (twin(losses, shared=model["trunk"]) / parts).backward()
        found.append(torch.cat([each.grad.flatten() for each in model["trunk"].parameters()]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 3e-3


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adadelta", "LBFGS"])
def test_an_optimizer_that_would_change_the_steps_is_refused_by_name(name: str) -> None:
    network = TwoLayer(TASKS)
    optimizer = getattr(torch.optim, name)(network.trunk_parameters(), lr=0.1)
    with pytest.raises(OptionError, match=rf"{name} would change them once more: attach torch.optim.SGD"):
        steelyard.AdaTask(list(TASKS)).attach(optimizer)


def test_momentum_at_the_trunk_is_refused_and_elsewhere_is_not() -> None:
    network = TwoLayer(TASKS)
    groups = [{"params": network.trunk_parameters()}, {"params": network.head_parameters(), "momentum": 0.9}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    steelyard.AdaTask(list(TASKS), shared=network.trunk).attach(optimizer)
    steelyard.AdaTask(list(TASKS), beta1=0).attach(optimizer)
    steelyard.AdaTask(list(TASKS), form="adagrad").attach(optimizer)
    for shared in (None, [network.trunk, *network.heads.values()]):
        with pytest.raises(OptionError, match=r"averages already \(beta1=0.9\).*leave momentum=0.9 out"):
            steelyard.AdaTask(list(TASKS), shared=shared).attach(optimizer)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda p: torch.optim.Adam(p, betas=(0.8, 0.999)), r"write adatask\(form=adam, beta1=0.8, beta2=0.999"),
        (lambda p: torch.optim.Adagrad(p), r"write adatask\(form=adagrad, epsilon=1e-10\)"),
        (lambda p: torch.optim.RMSprop(p), r"write adatask\(form=rmsprop, beta2=0.99, epsilon=1e-08\)"),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), "Adam cannot be split.*weight_decay is AdamW's alone"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "Adam cannot be split.*without amsgrad"),
        (lambda p: torch.optim.RMSprop(p, momentum=0.5), "RMSprop cannot be split"),
        (lambda p: torch.optim.Adadelta(p), "Adadelta cannot be split"),
        (lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:], "eps": 1e-4}]), "same numbers in all groups"),
    ],
)
def test_what_cannot_be_made_plain_sgd_says_why(made: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        steelyard.AdaTask(list(TASKS)).optimizer_for(made(TwoLayer(TASKS).trunk_parameters()))


def test_rates_and_decay_of_every_group_are_taken_over() -> None:
    p = TwoLayer(TASKS).trunk_parameters()
    made = torch.optim.AdamW([{"params": p[:1], "lr": 0.1}, {"params": p[1:], "weight_decay": 0.5}], lr=0.2)
    sgd = steelyard.AdaTask(list(TASKS)).optimizer_for(made)
    assert [(group["lr"], group["weight_decay"]) for group in sgd.param_groups] == [(0.1, 0.01), (0.2, 0.5)]
    assert [group["params"] for group in sgd.param_groups] == [p[:1], p[1:]]
    assert steelyard.AdaTask(list(TASKS)).optimizer_for(sgd) is sgd
    assert steelyard.make("mgda", list(TASKS)).optimizer_for(made) is made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "adagrad", "beta2": 0.9}, "form='adagrad' has no beta2: leave beta2=0.9 out"),
        ({"form": "rmsprop", "beta1": 0.5}, "form='rmsprop' has no beta1: leave beta1=0.5 out"),
        ({"every": 2}, "leave every=2 out"),
        ({"memory": "rows"}, "adatask has no use for them"),
        ({"epsilon": 0}, "epsilon must be greater than 0"),
        ({"beta1": 1}, r"beta1 must lie in \[0, 1\)"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        steelyard.AdaTask(list(TASKS), **options)
