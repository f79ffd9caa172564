"""Several networks of one shape as one, and a check that this changes nothing for any of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from steelyard.problems.problem import Problem
from steelyard.problems.task import Inputs, Task
from steelyard.study.training.hardware import FULL, Hardware
from steelyard.study.training.rows_on_device import RowsOnDevice

# Element by element: what they do to one network of a stack is what they would do to it alone.
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.RMSprop,
)
COUNTERS = ("step", "mu_product")  # what these optimizers keep once per parameter
CHECKED_ROWS, PADDING = 24, 8


class Stack(nn.Module):
    """K single-task networks of one shape with their optimizers, trained as one.

    Batches are [K, N, ...], padded at the end, with a mask of the rows that count. What dropout draws is drawn once
    for all, as each network alone would draw it after the same seed.

    Args:
        networks: in training mode; `unstack` writes back to them.
        tasks: the name of each network's task.
        optimizers: of each, alike in everything but their state.
        loss: of all tasks, a mean over rows.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        tasks: Sequence[str],
        optimizers: Sequence[torch.optim.Optimizer],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.networks, self.tasks, self.optimizers, self.loss = list(networks), tasks, optimizers, loss
        self.network = networks[0]  # whose code runs for all, in the mode that it is in
        self.weights, self.constants = stack_module_state(list(networks))
        self.optimizer = self._stack_optimizers()

    def _stack_optimizers(self) -> torch.optim.Optimizer:
        first, networks = self.optimizers[0], self.networks
        place = {parameter: name for name, parameter in self.network.named_parameters()}
        groups = [
            {**group, "params": [self.weights[place[parameter]] for parameter in group["params"]]}
            for group in first.param_groups
        ]
        stacked = type(first)(groups[0]["params"], lr=groups[0]["lr"])  # type: ignore[call-arg]
        stacked.param_groups[:] = groups
        stacked.state.clear()
        for name, *alone in zip(place.values(), *(network.parameters() for network in networks), strict=True):
            states = [optimizer.state.get(own, {}) for optimizer, own in zip(self.optimizers, alone, strict=True)]
            stacked.state[self.weights[name]] = {
                key: value.clone() if key in COUNTERS else torch.stack([state[key] for state in states])
                for key, value in states[0].items()
            }
        return stacked

    def forward(self, inputs: Inputs) -> tuple[dict[str, Tensor], None]:
        """Outputs [N, ...] by task, as of a network that learns them all."""
        return dict(zip(self.tasks, self.outputs(inputs), strict=True)), None

    def outputs(self, inputs: Inputs, apart: bool = False) -> Tensor:
        """[K, N, ...] of the same inputs for all, or with `apart` of inputs [K, N, ...]."""

        def call(parameters: Any, buffers: Any, inputs: Inputs) -> Tensor:
            output: Tensor
            (output,) = functional_call(self.network, (parameters, buffers), (inputs,))[0].values()
            return output

        where = (0, 0, 0 if apart else None)
        found: Tensor = vmap(call, in_dims=where, randomness="same")(self.weights, self.constants, inputs)
        return found

    def losses(self, inputs: Inputs, targets: Tensor, mask: Tensor) -> Tensor:
        """[K], each the mean over the rows [K, N, ...] of its mask [K, N]."""

        def mean(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
            rows = vmap(lambda output, target: self.loss(output[None], target[None]))(outputs, targets)
            return rows.where(mask, 0).sum() / mask.sum()

        found: Tensor = vmap(mean)(self.outputs(inputs, apart=True), targets, mask)
        return found

    def step(self, losses: Tensor) -> None:
        """One step of every network on its own loss."""
        self.optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def state_of(self, k: int) -> dict[str, Tensor]:
        """A copy of what network k's ``state_dict()`` would be."""
        copied = {name: value.clone() for name, value in self.networks[k].state_dict().items()}
        return {
            name: self.weights[name][k].detach().clone() if name in self.weights else value
            for name, value in copied.items()
        }

    @torch.no_grad()
    def load(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Give network k the parameters of a ``state_dict()``."""
        for name, stacked in self.weights.items():
            stacked[k] = state[name]

    @torch.no_grad()
    def unstack(self) -> None:
        """Write parameters and the optimizers' state back to the networks that were stacked."""
        for k, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            for name, parameter in network.named_parameters():
                parameter.copy_(self.weights[name][k])
                state = self.optimizer.state.get(self.weights[name], {})
                optimizer.state[parameter] = {
                    key: value.clone() if key in COUNTERS else value[k].clone() for key, value in state.items()
                }


def padded(rows: Sequence[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Row numbers of unequal batches as [K, N], filled up with each batch's first, and the mask of those that count."""
    longest = max(map(len, rows)) + extra
    numbers = torch.stack([torch.cat([each, each[:1].expand(longest - len(each))]) for each in rows])
    return numbers, torch.arange(longest) < torch.tensor([[len(each)] for each in rows])


def batch_of(problem: Problem, train: RowsOnDevice, targets: Tensor, rows: Tensor) -> tuple[Inputs, Tensor]:
    """Inputs and targets [K, N, ...] of the rows [K, N]; targets come as [K, all rows, ...]."""
    prepared = problem.prepare(train.inputs(rows.flatten()))
    apart = tree_map(lambda tensor: tensor.unflatten(0, rows.shape), prepared)
    to = train.hardware.to
    return apart, targets[to(torch.arange(len(rows))[:, None]), to(rows)]


def kind_of(network: nn.Module, task: Task, optimizer: torch.optim.Optimizer, hardware: Hardware) -> object:
    """What networks must have in common to be stacked; None for one that cannot be.

    Refused are optimizers that are not element by element or have hooks, convolutions (a stack of them is a grouped
    convolution, which the CPU does no faster than one after another), and half precision, whose rounding would hide
    that a network computes something else in the stack.
    """
    if hardware.precision != FULL:
        return None
    if (
        type(optimizer) not in ELEMENTWISE
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
    ):
        return None
    if any(isinstance(module, _ConvNd) for module in network.modules()):
        return None
    shapes = tuple((name, value.shape, value.dtype) for name, value in network.state_dict().items())
    options = repr([{**group, "params": len(group["params"])} for group in optimizer.param_groups])
    return repr(network), shapes, id(task.loss), options


def agrees(stack: Stack, problem: Problem, train: RowsOnDevice, targets: Tensor, rows: Sequence[Tensor]) -> bool:
    """Whether every network computes in the stack, on a padded batch, what it computes alone; tried on a few rows.

    What speaks against it shows here: rows that see each other or change a buffer (batch normalisation), a loss that
    is no mean over rows, random numbers drawn otherwise (several dropout layers, augmentation), operations that
    cannot be batched, networks that differ in more than their parameters.

    Args:
        train, targets: all training rows, their targets as [K, N, ...].
        rows: that each task learns from.
    """
    few = [_telling(each, targets[k]) for k, each in enumerate(rows)]
    try:
        with train.hardware.drawing_from(0), warnings.catch_warnings():
            # Of operations that are run one network after another all the same.
            warnings.filterwarnings("error", message="There is a performance drop")
            numbers, mask = padded(few, extra=PADDING)
            together = stack.losses(*batch_of(problem, train, targets, numbers), train.hardware.to(mask))
        return all(_agrees(stack, k, problem, train, targets[k], few[k], together[k]) for k in range(len(few)))
    except Exception:  # whatever it is that cannot be stacked; what is broken alone too is named there
        return False


def _telling(rows: Tensor, targets: Tensor) -> Tensor:
    """A few of these rows: the first, some of all others, and those with the smallest and the largest labels, of which
    a class that is rare is one: a loss that weighs classes shows among several alone.

    Args:
        rows: [n], numbers.
        targets: [N, ...], of all rows.
    """
    there = targets.index_select(0, rows.to(targets.device))
    sizes = there.reshape(len(rows), -1).cpu().double().nan_to_num().sum(1)
    spread = torch.linspace(0, len(rows) - 1, CHECKED_ROWS // 2).long()
    extremes = torch.stack([sizes.argmin(), sizes.argmax()])
    chosen = torch.cat([torch.arange(min(len(rows), CHECKED_ROWS // 2)), spread, extremes])
    return rows[torch.unique(chosen).to(rows.device)]


def _agrees(
    stack: Stack, k: int, problem: Problem, train: RowsOnDevice, targets: Tensor, rows: Tensor, together: Tensor
) -> bool:
    network = stack.networks[k]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with train.hardware.drawing_from(0):
        (output,) = network(problem.prepare(train.inputs(rows)))[0].values()
    alone = stack.loss(output, targets[train.hardware.to(rows)])
    near = (alone - together).abs() <= 1e3 * torch.finfo(alone.dtype).eps * alone.abs()
    return bool(near) and all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())
