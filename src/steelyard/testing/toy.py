"""A small real network on which methods are checked: one trunk, one head per task, losses of different sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.balancing.balancer import Balancer
from steelyard.balancing.losses_of import losses_of

Rescale = Callable[[str, Tensor], Tensor]


class _ToyNetwork(nn.Module):
    """Inputs -> the outputs of each head, and the features."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 7), nn.Tanh()).double()
        self.heads = nn.ModuleDict()

    def forward(self, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(inputs)
        return {task: head(features) for task, head in self.heads.items()}, features


class Toy:
    """Regression tasks of different scale on a shared tanh trunk, in float64; the same seed gives the same everything.

    Args:
        tasks: task names.
        seed: of the data and the network; each head is drawn from its own task's name, so the order of tasks does
            not matter.
        rescale: applied to each loss, to rescale it or to make it inf.
        at_trunk: whether gradients are read at the trunk instead of at the features.
        probing: whether calls bring the losses of two further batches.
        looking: whether calls bring the function that recomputes the losses.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        seed: int = 0,
        rescale: Rescale | None = None,
        at_trunk: bool = False,
        probing: bool = False,
        looking: bool = False,
    ) -> None:
        self.tasks = tuple(tasks)
        self.at_trunk, self.probing, self.looking = at_trunk, probing, looking
        self.rescale = rescale or (lambda task, loss: loss)
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(12, 5, generator=generator, dtype=torch.float64)
        self.network = _ToyNetwork()
        self.trunk, self.heads = self.network.trunk, self.network.heads
        self.targets: dict[str, Tensor] = {}
        _draw(self.trunk, generator)
        for task in self.tasks:
            own = torch.Generator().manual_seed(seed + sum((i + 1) * ord(letter) for i, letter in enumerate(task)))
            self.heads[task] = nn.Linear(7, 2).double()
            _draw(self.heads[task], own)
            size = 0.5 + 3 * float(torch.rand((), generator=own))
            self.targets[task] = size * torch.randn(12, 2, generator=own, dtype=torch.float64)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.01)

    def parameters(self) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), *self.heads.parameters()]

    def losses(
        self, rows: slice = slice(None), tasks: Iterable[str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Losses on some of the rows, and the further arguments of the balancer's call."""
        chosen = self.tasks if tasks is None else tuple(tasks)

        def losses_on(call: Callable[..., Any], rows: slice) -> tuple[dict[str, Tensor], Tensor]:
            outputs, features = call(self.inputs[rows])
            found = self.losses_of(outputs, {task: self.targets[task][rows] for task in chosen})
            return {task: self.rescale(task, loss) for task, loss in found.items()}, features

        losses, features = losses_on(self.network, rows)
        where: dict[str, Any] = {"shared": self.trunk if self.at_trunk else features}
        if self.looking:
            where["again"] = losses_of(self.network, lambda *given: losses_on(*given)[0], rows, slice(0, 6))
        if self.probing:
            self.probing = False  # for the calls that make the probes
            where["probes"] = [self.losses(part, tasks)[0] for part in (slice(0, 6), slice(6, 12))]
            self.probing = True
        return losses, where

    def losses_of(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of these targets' tasks, before `rescale`."""
        return {task: self.loss_of(outputs[task], target) for task, target in targets.items()}

    def loss_of(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of every task, before `rescale`."""
        return (output - target).square().mean()

    def gradients(self, scalar: Tensor) -> dict[str, Tensor]:
        """Gradients by parameter name, zero where there is none."""
        named = self.named_parameters()
        found = torch.autograd.grad(scalar, list(named.values()), allow_unused=True, retain_graph=True)
        return {
            name: torch.zeros_like(parameter) if gradient is None else gradient
            for (name, parameter), gradient in zip(named.items(), found, strict=True)
        }

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def step(self, balancer: Balancer, tasks: Iterable[str] | None = None) -> Tensor:
        """One training step on the whole batch, second look at the losses included; returns the weights."""
        losses, where = self.losses(tasks=tasks)
        self.optimizer.zero_grad()
        balancer(losses, **where).backward()
        self.optimizer.step()
        if balancer.needs_after and balancer.on_nonfinite != "ignore":
            balancer.observe(after=self.losses(tasks=tasks)[0])
        return balancer.last_weights

    def train(self, balancer: Balancer, steps: int, epoch: int = 2) -> Tensor:
        """Some steps with an epoch's end after every ``epoch`` of them; returns all weights ``[steps, T]``."""
        weights = []
        for number in range(steps):
            weights.append(self.step(balancer))
            if number % epoch == epoch - 1:
                if balancer.needs_validation:
                    balancer.observe(validation=self.losses()[0])
                balancer.end_epoch()
        return torch.stack(weights)


class WideToy(Toy):
    """One layer has an output for each of many tasks: a head each would take most of a check's time."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(())
        self.tasks = tuple(tasks)
        self.heads["all"] = nn.Linear(7, len(self.tasks)).double()
        self.sizes = torch.logspace(-2, 2, len(self.tasks), dtype=torch.float64)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=1e-5)

    def losses(
        self, rows: slice = slice(None), tasks: Iterable[str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        outputs, features = self.network(self.inputs[rows])
        each = self.sizes * (outputs["all"] - 1).square().mean(0)
        return dict(zip(self.tasks, each.unbind(), strict=True)), {"shared": features}


def snapshot(balancer: Balancer) -> dict[str, object]:
    """A copy of the whole state."""
    return {
        name: value.clone() if isinstance(value, Tensor) else dict(value) if isinstance(value, Mapping) else value
        for name, value in balancer.state_dict().items()
    }


def same_state(first: Mapping[str, object], second: Mapping[str, object]) -> bool:
    """Bit-for-bit equality of two state dicts, NaN equal to NaN."""
    if first.keys() != second.keys():
        return False
    return all(_same(first[name], second[name]) for name in first)


def _same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(1.5e300), second.nan_to_num(1.5e300))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return same_state(first, second)
    return first == second


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
