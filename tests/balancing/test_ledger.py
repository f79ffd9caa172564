"""The ledger's progress is each task's gradient, by autograd, times what the parameters really moved by."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import steelyard
from cells import every
from steelyard.errors import LossError, OptionError, SharedError, StateError, SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy

TASKS = ["a", "b", "c"]


class Network:
    """A trunk of some module and a head per task; losses of different size."""

    def __init__(self, trunk: nn.Module | None = None, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.trunk = trunk or nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.GELU()).to(dtype)
        self.inputs = torch.randn(16, 6, dtype=dtype)
        self.heads = nn.ModuleDict({task: nn.LazyLinear(3, dtype=dtype) for task in TASKS})
        self.targets = {task: 3.0**size * torch.randn(16, 3, dtype=dtype) for size, task in enumerate(TASKS)}
        self.losses()

    def losses(self, rows: slice = slice(None)) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(self.inputs[rows])
        return {
            task: (self.heads[task](features).float() - self.targets[task][rows]).square().mean() for task in TASKS
        }, features

    def parameters(self) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), *self.heads.parameters()]


def in_double(parts: Iterable[Tensor]) -> Tensor:
    """One vector, of the parts of complex numbers."""
    real = [torch.view_as_real(part) if part.is_complex() else part for part in map(Tensor.detach, parts)]
    return torch.cat([part.double().flatten() for part in real])


class Account:
    """Progress by definition: every task's gradient at every parameter, kept until the step is done."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        self.before = [parameter.detach().clone() for parameter in self.parameters]
        self.rows: dict[str, list[Tensor]] = {}

    def see(self, losses: Mapping[str, Tensor], share: float = 1.0) -> None:
        for task, loss in losses.items():
            found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
            dense = [
                torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
                for p, g in zip(self.parameters, found, strict=True)
            ]
            before = self.rows.get(task, [torch.zeros_like(p) for p in self.parameters])
            self.rows[task] = [b + share * g for b, g in zip(before, dense, strict=True)]

    def expected(self) -> dict[str, tuple[float, float]]:
        """Progress, and the length of gradient times change, to which rounding is to be compared."""
        found = {}
        for task, row in self.rows.items():
            now, before = (in_double(part) for part in (self.parameters, self.before))
            change, gradient = now - before, in_double(row)
            product = float(gradient @ change)
            lengths = float(gradient.norm()), float(change.norm())
            found[task] = -product, lengths[0] * lengths[1]
        return found


def agree(ledger: steelyard.Ledger, account: Account, tolerance: float = 1e-5) -> None:
    metrics, expected = ledger.metrics(), account.expected()
    assert {name for name in metrics if name.startswith("progress/")} == {f"progress/{task}" for task in expected}
    for task, (progress, size) in expected.items():
        assert size > 0
        assert abs(metrics[f"progress/{task}"] - progress) <= tolerance * size, task


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "decay alone": lambda p: torch.optim.SGD(p, lr=1e-6, weight_decay=1e4),
}


@pytest.mark.parametrize("clip", [None, 1e-2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_real_update_is_measured(name: str, clip: float | None) -> None:
    network = Network()
    optimizer = OPTIMIZERS[name](network.parameters())
    balancer = steelyard.make("uw", TASKS)
    ledger = steelyard.Ledger(balancer, optimizer, every=1)
    for _ in range(4):
        losses, _ = network.losses()
        account = Account(network.parameters())
        account.see(losses)
        balancer(losses).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        agree(ledger, account)
    assert ledger.steps == 4
    assert ledger.summary().steps == (4, 4, 4)


class Offset(nn.Module):
    """A parameter in no operation but a sum, complex numbers, and a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Linear(6, 6)
        self.turn = nn.Parameter(torch.randn(6, dtype=torch.complex64))
        self.norm = nn.BatchNorm1d(6)
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        turned = (self.tied(functional.relu(self.tied(x), inplace=True)) * self.turn).abs()
        return self.norm(turned) + self.frozen


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x.view(1, len(x), 6)).view(1, len(x), 3, 1, 6).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v).reshape(len(x), 6)


class _OutsideTorch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(gradient.detach().numpy() * x.detach().cos().numpy())


class _OnceOnly(_OutsideTorch):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0].cos()


class Custom(nn.Module):
    """With a way around what cannot be differentiated twice, so that every parameter has something of a record."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(6, 8), function

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return 3 * self.function.apply(z) + z


class Table(nn.Module):
    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.linear = table, nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        ids = (x[:, :3].abs() * 4).long().clamp(max=9)
        return self.linear(self.table(ids).view(len(x), -1)[:, :4])


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.block, self.reentrant = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Tanh()), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_() if self.reentrant else x
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.view(len(x), 3, 2).transpose(0, 1))[0][-1]


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "tied, complex, batch norm, in place": Offset,
    "dropout, checkpointed": lambda: Checkpointed(False),
    "lstm": Sequences,
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()
    ),
    "encoder": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), nn.Flatten()
    ),
    "table": lambda: Table(nn.Embedding(10, 4)),
}
ONCE_ONLY: dict[str, Callable[[], nn.Module]] = {
    "fused attention": Attention,
    "outside torch": lambda: Custom(_OutsideTorch),
    "once differentiable": lambda: Custom(_OnceOnly),
    "sparse table": lambda: Table(nn.Embedding(10, 4, sparse=True)),
    "bags": lambda: Table(nn.EmbeddingBag(10, 4)),
    "compiled": lambda: torch.compile(nn.Sequential(nn.Linear(6, 8), nn.Tanh()), backend="aot_eager"),  # type: ignore[dict-item]
}


def trained(network: Network, ledger: steelyard.Ledger, steps: int = 2) -> Account:
    for _ in range(steps):
        losses, _ = network.losses()
        account = Account(p for p in network.parameters() if p.requires_grad)
        account.see(losses)
        ledger.balancer(losses).backward()
        ledger.optimizer.step()
        ledger.optimizer.zero_grad()
    return account


@pytest.mark.parametrize("name", TRUNKS)
def test_any_network_is_measured(name: str) -> None:
    network = Network(TRUNKS[name]())
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), torch.optim.SGD(network.parameters(), lr=0.05), every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SteelyardWarning)
        agree(ledger, trained(network, ledger))


@pytest.mark.parametrize("name", ONCE_ONLY)
def test_what_cannot_be_differentiated_twice_is_measured_task_by_task_and_said_once(
    name: str,
) -> None:
    network = Network(ONCE_ONLY[name]())
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), torch.optim.SGD(network.parameters(), lr=0.05), every=1)
    config = torch._functorch.config
    keeps = config.patch(donated_buffer=False) if hasattr(config, "donated_buffer") else nullcontext()
    with pytest.warns(SteelyardWarning, match="cannot be differentiated twice") as said, keeps:
        account = trained(network, ledger, 4)
    assert len([each for each in said if issubclass(each.category, SteelyardWarning)]) == 1
    agree(ledger, account)
    assert min(ledger.summary().steps) >= 3  # the step that shows it may be lost


def with_hooks(parameters: Iterable[Tensor], hook: Callable[[Tensor], Tensor]) -> list[Any]:
    return [parameter.register_hook(hook) for parameter in parameters]


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("hook", [lambda g: 0.1 * g, torch.neg, lambda g: g.clamp(-1e-3, 1e-3)])
def test_hooks_on_parameters_are_in_the_change_and_not_in_the_gradients(
    hook: Callable[[Tensor], Tensor], twice: bool
) -> None:
    network = Network(None if twice else ONCE_ONLY["once differentiable"]())
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), torch.optim.SGD(network.parameters(), lr=0.05), every=1)
    losses, _ = network.losses()
    account = Account(network.parameters())
    account.see(losses)
    with_hooks(network.parameters(), hook)
    with nullcontext() if twice else pytest.warns(SteelyardWarning, match="cannot be differentiated twice"):
        ledger.balancer(losses).backward()
    ledger.optimizer.step()
    agree(ledger, account)


@pytest.mark.parametrize("twice", [True, False])
def test_hooks_that_draw_and_count_train_as_without(twice: bool) -> None:
    def run(with_ledger: bool) -> tuple[list[Tensor], int]:
        torch.manual_seed(0)
        network = Network(None if twice else ONCE_ONLY["once differentiable"]())
        calls: list[int] = []

        def noisy(gradient: Tensor) -> Tensor:
            calls.append(1)
            return gradient + torch.randn_like(gradient)

        with_hooks(network.parameters(), noisy)
        optimizer, balancer = torch.optim.SGD(network.parameters(), lr=0.05), steelyard.Equal(TASKS)
        if with_ledger:
            steelyard.Ledger(balancer, optimizer, every=1)
        for _ in range(3):
            optimizer.zero_grad()
            balancer(network.losses()[0]).backward()
            optimizer.step()
        return [parameter.detach() for parameter in network.parameters()], len(calls)

    plain, count = run(False)
    with nullcontext() if twice else pytest.warns(SteelyardWarning, match="cannot be differentiated twice"):
        measured, as_often = run(True)
    assert all(map(torch.equal, plain, measured))
    assert as_often == count


class _Fails(_OutsideTorch):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ArithmeticError("no gradient")


def test_hooks_are_there_again_in_their_order_where_a_record_fails() -> None:
    network = Network(Custom(_Fails))
    balancer = steelyard.Equal(TASKS)
    steelyard.Ledger(balancer, torch.optim.SGD(network.parameters(), lr=0.05), every=1)
    weight, calls = network.heads["a"].weight, []
    first = weight.register_hook(lambda gradient: calls.append("first"))
    weight.register_hook(lambda gradient: calls.append("second"))
    losses, _ = network.losses()
    with pytest.raises(ArithmeticError):
        balancer(losses)
    torch.autograd.grad(losses["a"], weight, retain_graph=True)
    first.remove()
    torch.autograd.grad(losses["a"], weight)
    assert calls == ["first", "second", "second"]


def test_another_optimizer_may_step_in_between() -> None:
    network = Network()
    other = torch.optim.SGD(network.heads.parameters(), lr=0.5)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), torch.optim.Adam(network.trunk.parameters()), every=1)
    losses, _ = network.losses()
    account = Account(network.trunk.parameters())
    account.see(losses)
    ledger.balancer(losses).backward()
    other.step()
    ledger.optimizer.step()
    agree(ledger, account)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_to_half_precisions_rounding(dtype: torch.dtype) -> None:
    """Changes far below what float16 holds."""
    network, plain = Network(), Network()
    for each in (plain, network):
        each.targets = {task: 1e-2 * target for task, target in each.targets.items()}
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), torch.optim.SGD(network.parameters(), lr=1e-6), every=1)
    account = Account(plain.parameters())
    account.see({task: loss * 1e-3 for task, loss in plain.losses()[0].items()})
    with torch.autocast("cpu", dtype=dtype):
        (2.0**10 * ledger.balancer({task: loss * 1e-3 for task, loss in network.losses()[0].items()})).backward()
    for parameter in network.parameters():
        parameter.grad *= 2.0**-10  # type: ignore[operator]
    ledger.optimizer.step()
    account.parameters = network.parameters()
    agree(ledger, account, 2e-2)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_not_measured(fused: bool, attached: bool) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    balancer = steelyard.Equal(TASKS)
    if attached:
        balancer.attach(optimizer, scaler)
    ledger = steelyard.Ledger(balancer, optimizer, every=1, scaler=None if attached else scaler)
    for step in range(6):
        network.inputs = network.inputs.roll(1, 0) * 1.01
        losses, _ = network.losses()
        account = Account(network.parameters())
        account.see(losses)
        scaler.scale(balancer(losses)).backward()
        if step in (1, 4):
            network.parameters()[0].grad[0, 0] = float("inf")  # type: ignore[index]
        before = ledger.steps
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=False)
        assert ledger.steps == before + (step not in (1, 4))
        if step not in (1, 4):
            agree(ledger, account)
    assert ledger.summary().steps == (4, 4, 4)


@pytest.mark.parametrize("at_once", [False, True])
def test_micro_batches_are_averaged_by_their_labels(at_once: bool) -> None:
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=2)
    for _ in range(4):
        account = Account(network.parameters())
        sums: list[Tensor] = []
        for rows, share in ((slice(0, 4), 0.25), (slice(4, 16), 0.75)):
            losses, _ = network.losses(rows)
            account.see(losses, share)
            sums.append(ledger.balancer(losses, counts=dict.fromkeys(TASKS, 16 * share)) * share)
            if not at_once:
                sums.pop().backward()
        if at_once:
            torch.stack(sums).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    agree(ledger, account)
    assert ledger.summary().steps == (2, 2, 2)


@pytest.mark.parametrize("backward", [False, True])
def test_a_batch_that_is_given_up_by_hand_is_not_counted(backward: bool) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=1)
    given_up = ledger.balancer(network.losses(slice(0, 4))[0])
    if backward:
        given_up.backward()
        optimizer.zero_grad()
    agree(ledger, trained(network, ledger, 1))


@pytest.mark.parametrize("attached", [False, True])
def test_gradients_that_are_cleared_after_the_next_call_were_given_up_too(attached: bool) -> None:
    """``balancer(losses); optimizer.zero_grad(); backward()``: the call finds them there, its backward does not."""
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    balancer = steelyard.Equal(TASKS)
    ledger = steelyard.Ledger(balancer.attach(optimizer) if attached else balancer, optimizer, every=1)
    balancer(network.losses(slice(0, 4))[0]).backward()
    result = balancer(network.losses(slice(0, 8))[0])
    optimizer.zero_grad()
    result.backward()
    others = balancer(network.losses(slice(8, 16))[0])  # a second micro-batch of the same step
    others.backward()
    account = Account(network.parameters())
    account.see(network.losses(slice(0, 8))[0], share=0.5)
    account.see(network.losses(slice(8, 16))[0], share=0.5)
    optimizer.step()
    agree(ledger, account)


def test_results_that_are_added_up_before_they_are_sent_are_both_measured() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=1)
    account = Account(network.parameters())
    total = torch.zeros(())
    for rows in (slice(0, 8), slice(8, 16)):
        account.see(network.losses(rows)[0], share=0.5)
        total = total + ledger.balancer(network.losses(rows)[0])
    total.backward()
    optimizer.step()
    agree(ledger, account)


def test_a_window_that_the_balancer_discards_is_discarded() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS).attach(optimizer), optimizer, every=1)
    ledger.balancer(network.losses(slice(0, 4))[0]).backward()
    optimizer.zero_grad(set_to_none=False)
    ledger.balancer.discard()
    agree(ledger, trained(network, ledger, 1))


def test_a_closure_is_measured_where_the_step_began() -> None:
    network = Network(dtype=torch.float64)
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    ledger = steelyard.Ledger(steelyard.Equal(TASKS).attach(optimizer), optimizer, every=1)
    account = Account(network.parameters())
    account.see(network.losses()[0])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ledger.balancer(network.losses()[0])
        loss.backward()
        return loss

    optimizer.step(closure)
    agree(ledger, account)


def test_a_sharpness_aware_step_is_measured_where_it_began() -> None:
    class SAM(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})
            self.base_optimizer = torch.optim.SGD(self.param_groups, lr=0.05)

        @torch.no_grad()
        def first_step(self) -> None:
            self.old = [p.clone() for p in self.param_groups[0]["params"]]
            for p in self.param_groups[0]["params"]:
                p.data.add_(p.grad, alpha=0.05)
                p.grad = None

        @torch.no_grad()
        def second_step(self) -> None:
            for p, old in zip(self.param_groups[0]["params"], self.old, strict=True):
                p.data = old
            self.base_optimizer.step()

    network = Network()
    optimizer = SAM(network.parameters())
    ledger = steelyard.Ledger(steelyard.Equal(TASKS).attach(optimizer), optimizer, every=1)
    account = Account(network.parameters())
    account.see(network.losses()[0])
    for step in (optimizer.first_step, optimizer.second_step):
        ledger.balancer(network.losses()[0]).backward()
        step()
    agree(ledger, account)


class Around(torch.optim.Optimizer):
    """Lookahead, as several packages have it; lets its optimizer step in each n-th step alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, each: int = 1) -> None:
        super().__init__(optimizer.param_groups, {})
        self.optimizer, self.each, self.number, self.param_groups = optimizer, each, 0, optimizer.param_groups
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.number += 1
        if self.number % self.each:
            return
        self.optimizer.step(closure)
        self.optimizer.zero_grad()
        for fast, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
            fast.data.lerp_(slow, 0.7)  # back beyond where the step began


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_what_an_optimizer_around_it_moves_is_measured_too(fused: bool, attached: bool) -> None:
    network = Network()
    optimizer = Around(torch.optim.SGD(network.parameters(), lr=0.05, fused=fused))
    balancer = steelyard.make("uw", TASKS)
    ledger = steelyard.Ledger(balancer.attach(optimizer) if attached else balancer, optimizer, every=1)
    for number in range(3):
        losses, _ = network.losses()
        account = Account(network.parameters())
        account.see(losses)
        balancer(losses).backward()
        optimizer.step()
        agree(ledger, account)
        assert ledger.steps == balancer.steps == number + 1
    losses, _ = network.losses()
    account = Account(network.parameters())
    account.see(losses)
    balancer(losses).backward()
    optimizer.optimizer.step()  # the one inside, by hand
    agree(ledger, account)


def test_an_optimizer_around_it_that_collects_micro_batches_steps_where_the_inner_one_does() -> None:
    network = Network()
    optimizer = Around(torch.optim.SGD(network.parameters(), lr=0.05), each=2)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=1)
    for number in range(2):
        account = Account(network.parameters())
        for rows in (slice(0, 8), slice(8, 16)):
            losses, _ = network.losses(rows)
            account.see(losses, 0.5)
            (ledger.balancer(losses) / 2).backward()
            optimizer.step()
        agree(ledger, account)
        assert ledger.steps == number + 1


def test_a_trainers_wrapper_whose_hooks_nobody_calls_is_looked_through() -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer, self.param_groups = optimizer, optimizer.param_groups

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.optimizer.step()

    network = Network()
    around = Around(torch.optim.SGD(network.parameters(), lr=0.05))
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), Wrapper(around), every=1)
    losses, _ = network.losses()
    account = Account(network.parameters())
    account.see(losses)
    ledger.balancer(losses).backward()
    Wrapper(around).step()
    agree(ledger, account)


WEIGHTS: dict[str, dict[str, Any]] = {
    "fixed": {"weights": {"a": 0.5, "b": 1.0, "c": 2.0}},
    "schedule": {"weights": "a: 1.0 until 2, then 0.1"},
}


@every("name", [name for name in method_names() if method_class(name).where])
def test_every_method_is_measured_and_trains_as_without(name: str) -> None:
    at_trunk = "features" not in method_class(name).where

    def run(with_ledger: bool) -> tuple[list[Tensor], dict[str, float]]:
        torch.manual_seed(0)
        main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
        method = steelyard.make(name, TASKS, **main, **WEIGHTS.get(name, {}))
        toy = Toy(
            TASKS,
            at_trunk=at_trunk,
            probing=method.reads == "cross_gramian",
            looking=method.needs_after or method.reads == "lookahead",
        )
        method.attach(toy.optimizer)
        ledger = steelyard.Ledger(method, toy.optimizer, every=2) if with_ledger else None
        account = Account(toy.parameters())
        for _ in range(4):
            losses, arguments = toy.losses()
            if with_ledger:
                account = Account(toy.parameters())
                account.see({task: loss for task, loss in losses.items() if loss is not None})
            method(losses, **arguments).backward()
            toy.optimizer.step()
            toy.optimizer.zero_grad()
        if ledger is not None:
            agree(ledger, account, 1e-9)
        return [p.detach().clone() for p in toy.parameters()], ledger.metrics() if ledger else {}

    plain, measured = run(False)[0], run(True)[0]
    assert all(map(torch.equal, plain, measured))


def test_absent_idle_and_spoiled_tasks_are_left_out() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    balancer = steelyard.Equal(TASKS, on_nonfinite="drop_task")
    ledger = steelyard.Ledger(balancer, optimizer, every=1)
    losses: dict[str, Any] = network.losses()[0]
    balancer({"a": losses["a"], "b": losses["b"] * float("nan"), "c": None}).backward()
    optimizer.step()
    assert set(ledger.metrics()) == {"progress/a", "hurt/a"}
    optimizer.zero_grad()
    losses = network.losses()[0]
    with pytest.warns(SteelyardWarning, match="exactly 0"):
        balancer({"a": losses["a"], "b": 0 * losses["b"]}).backward()
    optimizer.step()
    summary = ledger.summary()
    assert summary.steps == (2, 0, 0)
    assert "nan" in str(summary)


def test_a_ledger_whose_optimizer_no_longer_steps_says_so_once() -> None:
    network = Network()
    first, second = (torch.optim.SGD(network.parameters(), lr=0.001) for _ in range(2))
    balancer = steelyard.make("uw", TASKS).attach(first)
    ledger = steelyard.Ledger(balancer, first, every=1)

    def train(optimizer: torch.optim.Optimizer, steps: int, micro_batches: int = 1) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(steps):
                balancer(network.losses()[0]).backward()
                if step % micro_batches == micro_batches - 1:
                    optimizer.step()
                    optimizer.zero_grad()
        return [str(each.message) for each in caught]

    assert train(first, 40) == train(first, 90, 30) == []
    balancer.attach(second)
    said = "the ledger of uw measures an optimizer (SGD) that has not stepped in 25 calls, while another optimizer has"
    (heard,) = train(second, 60)
    assert said in heard
    assert "steelyard.Ledger(balancer, optimizer)" in heard
    again = steelyard.Ledger(balancer, second, every=1)
    again.load_state_dict(ledger.state_dict())
    assert train(second, 40) == train(second, 90, 30) == []
    assert again.steps == 43 + 43


def test_every_counts_steps_and_a_checkpoint_goes_on() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=3)
    trained(network, ledger, 4)
    assert ledger.summary().steps == (1, 1, 1)
    state = pickle.loads(pickle.dumps(ledger.state_dict()))
    again = steelyard.Ledger(ledger.balancer, optimizer, every=3)  # takes the other's place
    again.load_state_dict(state)
    assert again.metrics() == ledger.metrics()
    trained(network, again, 2)
    assert (ledger.steps, again.steps) == (4, 6)
    assert again.summary().steps == (2, 2, 2)
    with pytest.raises(StateError, match="lacks entries"):
        again.load_state_dict({"steps": 1, "since": 0, "measured": []})


def test_hurt_and_against_are_counted() -> None:
    w = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.SGD([w], lr=0.1)
    ledger = steelyard.Ledger(steelyard.Equal(["a", "b"]), optimizer, every=1)
    for sign in (1, 1, -1):
        ledger.balancer({"a": 3 * w[0], "b": sign * w[0]}).backward()
        optimizer.step()
        optimizer.zero_grad()
    a, b = ledger.summary().to_dict().values()
    assert a["hurt"] == a["against"] == 0
    assert b["hurt"] == pytest.approx(1 / 3)
    assert b["against"] == pytest.approx(0.2 / (0.4 + 0.4 + 0.2))
    assert b["progress"] == pytest.approx((0.4 + 0.4 - 0.2) / 3)


def test_copies_of_the_balancer_have_no_ledger_and_removed_ones_hear_nothing() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=1)
    for twin in (copy.deepcopy(ledger.balancer), pickle.loads(pickle.dumps(ledger.balancer))):
        assert twin._ledger is None
    ledger.remove()
    trained(network, ledger, 1)
    assert ledger.steps == 0
    assert ledger.balancer._ledger is None


def test_steps_before_which_nothing_was_called_are_not_counted() -> None:
    """Loading and saving with torch.distributed.checkpoint takes one, to prepare an optimizer that has no state."""
    network = Network()
    model = nn.ModuleDict({"trunk": network.trunk, "heads": network.heads})
    saved = get_state_dict(model, torch.optim.SGD(network.parameters(), lr=0.01))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=2)
    set_state_dict(model, optimizer, model_state_dict=saved[0], optim_state_dict=saved[1])
    assert ledger.steps == 0
    trained(network, ledger, 1)
    assert ledger.metrics() == {}
    agree(ledger, trained(network, ledger, 1))
    ledger.balancer(network.losses()[0])
    ledger.balancer.discard()
    get_state_dict(model, optimizer)
    assert ledger.steps == 2


def test_a_step_whose_parameters_were_set_by_hand_counts() -> None:
    network = Network()
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), torch.optim.SGD(network.parameters(), lr=0.01), every=1)
    ledger.balancer(network.losses()[0])
    with torch.no_grad():
        network.parameters()[0].mul_(0.5)
    agree(ledger, trained(network, ledger, 1))
    assert ledger.steps == 1


def test_eval_mode_and_steps_of_other_losses_are_not_measured() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    ledger = steelyard.Ledger(steelyard.Equal(TASKS), optimizer, every=1)
    sum(network.losses()[0].values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    optimizer.zero_grad()
    ledger.balancer.eval()
    ledger.balancer(network.losses()[0])
    ledger.balancer.train()
    assert ledger.metrics() == {}
    agree(ledger, trained(network, ledger, 1))


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    balancer = steelyard.Equal(TASKS)
    with pytest.raises(OptionError, match="every must be a whole number"):
        steelyard.Ledger(balancer, optimizer, every=0)
    with pytest.raises(OptionError, match="takes the balancer"):
        steelyard.Ledger(network.trunk, optimizer)  # type: ignore[arg-type]
    sharded = nn.Parameter(torch.ones(1))
    sharded.device_mesh = "two ranks"  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="sharded over ranks"):
        steelyard.Ledger(balancer, torch.optim.SGD([sharded], lr=0.01))
    with pytest.raises(OptionError, match=r"torch\.optim\.Optimizer"):
        steelyard.Ledger(balancer, network.trunk)  # type: ignore[arg-type]
    steelyard.Ledger(balancer, torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0), every=1)
    with pytest.raises(LossError, match="no loss depends on a parameter of this optimizer"):
        balancer(network.losses()[0])
    hidden = Network(Checkpointed(True))
    steelyard.Ledger(balancer, torch.optim.SGD(hidden.parameters(), lr=1.0), every=1)
    with pytest.raises(SharedError, match="use_reentrant=False"):
        balancer(hidden.losses()[0])
