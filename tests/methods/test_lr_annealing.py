"""The mean of `lr-annealing` is over the parameters that a task's loss depends on, wherever rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard


class Physics(nn.Module):
    """A field that all terms read, a coefficient that the equation alone reads, and a branch that the data read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.field = nn.Linear(3, 8)
        self.coefficient = nn.Parameter(torch.randn(50))
        self.branch = nn.Linear(3, 20)
        self.unused = nn.Parameter(torch.randn(30))
        self.double()

    def losses(self, batch: int = 0, branch: bool = True) -> dict[str, Tensor]:
        x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(batch))
        u = self.field(x).relu()
        data = u.square().mean()
        return {
            "residual": (u.sum(1) * self.coefficient.square().sum()).square().mean(),
            "boundary": (u[:, 0] - 1).square().mean(),  # one unit of the field: zeros of the others count
            "data": data + self.branch(x).square().mean() if branch else data,
        }


def rows_of(network: Physics, losses: Mapping[str, Tensor]) -> dict[str, list[Tensor | None]]:
    parameters = list(network.parameters())
    return {
        task: list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))
        for task, loss in losses.items()
    }


def joined(first: list[Tensor | None], second: list[Tensor | None]) -> list[Tensor | None]:
    """The mean of two micro-batches."""
    return [None if a is None and b is None else ((0 if a is None else a) + (0 if b is None else b)) / 2
            for a, b in zip(first, second, strict=True)]  # fmt: skip


def ratios(rows: Mapping[str, list[Tensor | None]]) -> list[float]:
    def there(task: str) -> Tensor:
        return torch.cat([each.flatten() for each in rows[task] if each is not None]).abs()

    return [1.0, *(float(there("residual").max() / there(task).mean()) for task in list(rows)[1:])]


def make(**options: Any) -> steelyard.Balancer:
    options = {"main": "residual", "beta": 0.5, **options}
    return steelyard.LRAnnealing(["residual", "boundary", "data"], **options)


@pytest.mark.parametrize("shared", ["module", "parameters", "at construction"])
def test_what_a_loss_does_not_use_is_not_counted(shared: str) -> None:
    network = Physics()
    balancer = make(shared=network) if shared == "at construction" else make()
    losses = network.losses()
    expected = ratios(rows_of(network, losses))
    given = {"module": network, "parameters": list(network.parameters())}.get(shared)
    balancer(losses, shared=given)
    assert balancer.last_weights.tolist() == pytest.approx(expected, rel=1e-9)


def test_further_parameters_in_shared_change_nothing() -> None:
    network = Physics()
    few, many = make(), make()
    few(network.losses(branch=False), shared=[*network.field.parameters(), network.coefficient])
    many(network.losses(branch=False), shared=network)
    assert few.last_weights.tolist() == pytest.approx(many.last_weights.tolist(), rel=1e-12)


def test_micro_batches_of_one_step() -> None:
    """The second alone uses the branch: the step's mean counts it."""
    network = Physics()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    balancer = make().attach(optimizer)
    rows = []
    for batch in range(2):
        losses = network.losses(batch, branch=batch == 1)
        rows.append(rows_of(network, losses))
        balancer(losses, shared=network).backward()
    optimizer.step()
    expected = ratios({task: joined(rows[0][task], rows[1][task]) for task in rows[0]})
    assert balancer.average.tolist()[1:] == pytest.approx(expected[1:], rel=1e-9)


def test_remembered_rows() -> None:
    """A task that is absent keeps its weight; the largest gradient is that of the remembered residual."""
    network = Physics()
    balancer = make(memory="rows", beta=0.0)
    balancer(network.losses(), shared=network)
    first = rows_of(network, network.losses())
    losses = network.losses(1)
    rows = {**first, "data": rows_of(network, losses)["data"]}
    balancer({"data": losses["data"]}, shared=network)
    assert balancer.last_weights.tolist() == pytest.approx([0.0, 0.0, ratios(rows)[2]], rel=1e-9)
    assert balancer.average.tolist()[1:] == pytest.approx(ratios(rows)[1:], rel=1e-9)


def test_a_stage_in_front_and_a_task_that_is_left_out() -> None:
    network = Physics()
    balancer = steelyard.make("log+lr-annealing(main=residual)", ["residual", "boundary", "data", "more"])
    losses = network.losses()
    logs = {task: loss.log() for task, loss in losses.items()}
    balancer(losses, shared=network)
    assert balancer.average.tolist()[1:3] == pytest.approx(ratios(rows_of(network, logs))[1:], rel=1e-6)


def test_a_function_that_sends_nothing_to_a_parameter() -> None:
    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *received: Tensor) -> tuple[Tensor | None, ...]:
            return received[0], None

    a, b = nn.Parameter(torch.tensor([4.0, 1.0])), nn.Parameter(torch.ones(6))
    losses = {"residual": (a * torch.tensor([4.0, 1.0])).sum() + b.sum(), "boundary": Straight.apply(a, b).sum()}
    balancer = steelyard.LRAnnealing(["residual", "boundary"], main="residual")
    balancer(losses, shared=[a, b])
    assert balancer.last_weights.tolist() == [1.0, 4.0]
